//! Whether this machine lets the labs build networks of their own. Asked before anything is
//! compiled, since the answer may be a setting that only an administrator can change.

use std::process::ExitCode;
use std::time::Duration;

use anycast_labs::isolate::{self, Entered, Isolation};
use anycast_labs::{Netns, link};

use crate::run::Failure;

/// How long making the namespaces may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes what every lab begins with: namespaces of its own, with a veth pair in them.
///
/// This executable is started again in there and goes to [`inside`].
pub(crate) fn check() -> Result<(), Failure> {
    let mut said = Vec::new();
    let status = Isolation::new(["namespaces"])
        .start()
        .and_then(|inside| inside.wait(Some(LIMIT), |bytes| said.extend_from_slice(bytes)))
        .map_err(|error| Failure::new(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
    Err(Failure::new(format!(
        "the labs cannot make a network with a veth pair here: {said}; in a container run it \
         privileged (docker run --privileged), and load the kernel module veth"
    )))
}

/// The copy of this program inside the namespaces.
pub(crate) fn inside() -> ExitCode {
    let made = match isolate::reexec(["namespaces"]) {
        Ok(Entered::Inside) => veth_pair().map_err(|error| error.to_string()),
        Ok(Entered::Done(_)) => Err("it did not stay inside".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn veth_pair() -> Result<(), anycast_labs::NetnsError> {
    let (a, b) = (Netns::new("a")?, Netns::new("b")?);
    link(&a, "eth0", &b, "eth0")
}
