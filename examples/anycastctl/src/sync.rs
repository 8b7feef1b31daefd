//! `anycastctl sync`: how a node's data compares with that of its peers, and the order to reconcile
//! it now.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anycast_core::admin::AdminAddress;
use clap::Subcommand;
use hyper::Method;
use serde_json::Value;

use crate::ask::Question;
use crate::model::sync::{DataSet, Diff, Run};
use crate::screen::{self, Screen};
use crate::{Failure, clean, read, token, view};

/// Between two looks at an order that is being carried out.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks between two lines of progress.
const TELL_EVERY: u32 = 10;

#[derive(Debug, Subcommand)]
pub(crate) enum Sync {
    /// How this node's data compares with each peer's, and what is in the way
    Status {
        /// Print the node's answer as it is, in JSON
        #[arg(long)]
        json: bool,
    },
    /// What differs, by peer and item
    Diff {
        /// Which data set; may be left out where the node has one
        data_set: Option<String>,
        /// Print the node's answer as it is, in JSON
        #[arg(long)]
        json: bool,
    },
    /// Reconcile completely with every reachable peer now, and say what was done. Ends when it is
    /// done; interrupted, the node goes on
    Force {
        /// Which data set; may be left out where the node has one
        data_set: Option<String>,
    },
}

impl Sync {
    pub(crate) fn run(
        self,
        address: &AdminAddress,
        token_file: Option<PathBuf>,
        screen: Screen,
    ) -> Result<(), Failure> {
        match self {
            Self::Status { json: true } => raw(address, "/sync"),
            Self::Status { json: false } => {
                let all = all(address)?;
                screen.write(&view::sync::status(&all, screen.width()))?;
                Ok(())
            }
            Self::Diff { data_set, json } => {
                let name = choose(address, data_set)?;
                let path = format!("/sync/{name}/diff");
                if json {
                    return raw(address, &path);
                }
                let diff: Diff = read(address, &Question::read(address, &path).ask()?)?;
                screen.write(&view::sync::diff(&diff, screen.width()))?;
                Ok(())
            }
            Self::Force { data_set } => force(address, token_file, data_set, screen),
        }
    }
}

fn raw(address: &AdminAddress, path: &str) -> Result<(), Failure> {
    let answer = Question::read(address, path).ask()?;
    // Read all the same, so that what is printed is JSON.
    read::<Value>(address, &answer)?;
    screen::write(&answer)?;
    Ok(())
}

fn all(address: &AdminAddress) -> Result<BTreeMap<String, DataSet>, Failure> {
    Ok(read(address, &Question::read(address, "/sync").ask()?)?)
}

/// The data set that was named, or the only one.
fn choose(address: &AdminAddress, named: Option<String>) -> Result<String, Failure> {
    let all = all(address)?;
    let mut names = all.keys();
    let others = || clean(&all.keys().cloned().collect::<Vec<_>>().join(", "));
    match (named, names.next(), names.next()) {
        (Some(name), ..) if all.contains_key(&name) => Ok(name),
        (_, None, _) => Err(Failure::NoDataSets),
        (None, Some(only), None) => Ok(only.clone()),
        (None, ..) => Err(Failure::WhichDataSet { others: others() }),
        (Some(name), ..) => Err(Failure::NoDataSet {
            name: clean(&name),
            others: others(),
        }),
    }
}

fn force(
    address: &AdminAddress,
    token_file: Option<PathBuf>,
    data_set: Option<String>,
    screen: Screen,
) -> Result<(), Failure> {
    let name = choose(address, data_set)?;
    let path = format!("/sync/{name}/force");
    let order = Question {
        method: Method::POST,
        body: "{}".to_owned(),
        token: token(address, token_file)?,
        ..Question::read(address, &path)
    };
    let begun: Run = read(address, &order.ask()?)?;
    let path = format!("/sync/{name}");
    let mut looks = 0_u32;
    loop {
        let now: DataSet = read(address, &Question::read(address, &path).ask()?)?;
        // Another number: the node was restarted, or somebody ordered it again after ours had ended.
        if now.force.number != begun.number {
            return Err(Failure::Reconcile {
                name,
                why: "what became of it is not known: the node was restarted, or it was ordered \
                      again meanwhile"
                    .to_owned(),
            });
        }
        if !now.force.running {
            if let Some(error) = &now.force.error {
                let why = clean(error);
                return Err(Failure::Reconcile { name, why });
            }
            screen.write(&view::sync::forced(&name, &now))?;
            return Ok(());
        }
        looks += 1;
        if looks.is_multiple_of(TELL_EVERY) {
            eprintln!("{}", clean(&now.reason));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
