//! Operators' orders: taken, kept over restarts, ended on time.
//!
//! An order takes effect at once; keeping it is a matter of the disk, which may be slow, full
//! or gone. So the decision loop never touches the disk: a task of its own, the *keeper*,
//! brings the file in line with the latest order, one write at a time, and tries again every
//! [`KEEP_RETRY`] when that failed. The operator is answered when the file is on the disk, or
//! told after [`KEEP_TIMEOUT`] that it is not.
//!
//! Only the latest order counts: one that was overtaken before it was written never is.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{AbortOnDrop, spawn};
use crate::health::Reason;
use crate::intent_store::file::{IntentFile, SystemClock};
use crate::intent_store::{ClockReading, OrderKind, SavedIntent};
use crate::machine::Intent;
use crate::service::ServiceName;

/// Longest time that the answer to an order waits for the disk. The order stands when it is
/// not saved by then; the answer says that it would not survive a restart.
pub const KEEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that the start of a service waits for its saved intent to be read. What cannot
/// be read by then counts as one that cannot be read.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before an order that could not be saved is saved again.
pub const KEEP_RETRY: Duration = Duration::from_secs(60);
/// How far the host's clock and ours may be apart before an order's end is moved: more than
/// what passes between two readings, less than a suspension.
const CLOCK_SLACK: Duration = Duration::from_secs(1);
/// Who has ordered what a file that cannot be understood stands for.
const OURSELVES: &str = "this node";

/// What reads the host's clocks.
pub type Clock = Arc<dyn Fn() -> ClockReading + Send + Sync>;

/// The folder in which operators' orders survive a restart, one file for each service
/// ([`IntentFile`]), and the clocks that they end by. Nodes do not share one.
#[derive(Clone)]
pub struct StateDir {
    folder: PathBuf,
    clock: Clock,
}

impl StateDir {
    /// This folder, and the host's clocks. Nothing is touched yet; a missing folder is created
    /// when the first order is saved.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let clock = SystemClock::new();
        Self {
            folder: folder.into(),
            clock: Arc::new(move || clock.read()),
        }
    }

    /// The same with other clocks, for tests in virtual time.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    fn file(&self, service: &ServiceName) -> IntentFile {
        IntentFile::new(&self.folder, service)
    }
}

impl fmt::Debug for StateDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StateDir").field(&self.folder).finish()
    }
}

/// An operator's order. It outranks health until it ends or is lifted (F9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Demote or withdraw.
    pub kind: OrderKind,
    /// Why, in the operator's words.
    pub reason: Reason,
    /// Who, and from where.
    pub by: Reason,
    /// For how long: more than zero and at most ten years. `None`: until it is lifted.
    pub lasts: Option<Duration>,
}

/// What a configuration orders of itself, beside the orders of operators.
///
/// An order by anybody else outranks it; when that ends or is lifted, this one stands again. It
/// follows the configuration over a restart: an order of this author that was saved is not
/// restored, and [`order`](Self::order) is given in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingOrder {
    /// The author of such orders.
    pub by: Reason,
    /// Demote or withdraw, and why. `None`: the configuration orders nothing.
    pub order: Option<(OrderKind, Reason)>,
}

/// Whether an order survives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// It is being written.
    Pending,
    /// It does: it is on the disk.
    Yes,
    /// It does not, for this reason. Where an earlier one was saved, that one does.
    No(Reason),
}

/// The order was taken: it is what the node decides by from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ordered {
    /// Whether it survives a restart. Of an order that was lifted: whether it stays so.
    pub saved: Saved,
}

/// The order in force at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IntentSnapshot {
    /// Demote or withdraw.
    pub order: OrderKind,
    /// Why, in the operator's words.
    pub reason: Reason,
    /// Who, and from where.
    pub by: Reason,
    /// When it was given, as far as can be told after a reboot.
    pub given: Instant,
    /// When it ends; `None`: when it is lifted.
    pub until: Option<Instant>,
    /// Whether it survives a restart.
    pub saved: Saved,
}

/// What was found at the start.
pub(super) enum Loaded {
    Nothing,
    Intent(SavedIntent),
    /// An operator had spoken, and what cannot be told.
    Bad {
        why: String,
        /// It was kept aside, so that the file may be written again.
        aside: bool,
    },
}

/// Reads a service's saved intent, bounded in time.
pub(super) async fn load(state: Option<StateDir>, service: ServiceName) -> Loaded {
    let Some(state) = state else {
        return Loaded::Nothing;
    };
    let file = state.file(&service);
    let path = file.path().to_owned();
    let reading = tokio::task::spawn_blocking(move || match file.load() {
        Ok(None) => Loaded::Nothing,
        Ok(Some(intent)) => Loaded::Intent(intent),
        Err(error) => {
            let why = error.to_string();
            let aside = file.set_aside();
            if let Err(error) = &aside {
                tracing::warn!(%error, "a saved intent that cannot be read stays where it is");
            }
            let aside = aside.is_ok();
            Loaded::Bad { why, aside }
        }
    });
    let bad = |why: &str| Loaded::Bad {
        why: format!("{} {why}", path.display()),
        aside: false,
    };
    match tokio::time::timeout(LOAD_TIMEOUT, reading).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(_)) => bad("cannot be read: reading it was broken off"),
        Err(_) => bad(&format!(
            "cannot be read: no answer within {LOAD_TIMEOUT:?}"
        )),
    }
}

#[derive(Debug, Clone)]
struct Active {
    kind: OrderKind,
    reason: Reason,
    by: Reason,
    given: Instant,
    until: Option<Instant>,
    /// As it is kept; its end is in the host's clocks.
    kept: Option<SavedIntent>,
    /// Why it is not to be saved at all.
    unsaved: Option<Reason>,
}

impl Active {
    fn intent(&self) -> Intent {
        let (reason, by, until) = (self.reason.clone(), self.by.clone(), self.until);
        match self.kind {
            OrderKind::Demote => Intent::Demote { reason, by, until },
            OrderKind::Withdraw => Intent::Withdraw { reason, by, until },
        }
    }
}

/// The order in force, as the decision loop knows it.
pub(super) struct Orders {
    service: ServiceName,
    clock: Option<Clock>,
    active: Option<Active>,
    standing: Option<StandingOrder>,
    keeper: Option<Keeper>,
}

impl Orders {
    /// No order in force, and a keeper where there is a folder to keep them in.
    pub(super) fn new(
        state: Option<&StateDir>,
        service: &ServiceName,
        standing: Option<StandingOrder>,
    ) -> Self {
        Self {
            service: service.clone(),
            clock: state.map(|state| Arc::clone(&state.clock)),
            active: None,
            standing,
            keeper: state.map(|state| Keeper::start(state.file(service))),
        }
    }

    /// Takes up what was found at the start, and what the configuration orders.
    pub(super) fn begin(&mut self, now: Instant, loaded: Loaded) {
        let by_configuration = match &loaded {
            Loaded::Intent(saved) => self.is_standing(&saved.by),
            Loaded::Nothing | Loaded::Bad { .. } => false,
        };
        if by_configuration {
            self.keep(None);
        } else {
            self.restore(now, loaded);
        }
        if self.active.is_none() && self.has_standing() {
            self.stand(now);
        }
    }

    /// The configuration orders this from now on. What is in force stays while it is somebody
    /// else's.
    pub(super) fn set_standing(&mut self, now: Instant, standing: StandingOrder) {
        if self.standing.as_ref() == Some(&standing) {
            return;
        }
        let active = self.active.as_ref();
        let mine =
            active.is_none_or(|active| active.by == standing.by || self.is_standing(&active.by));
        self.standing = Some(standing);
        if mine {
            self.active = None;
            self.stand(now);
        }
    }

    /// The same, while what is in force is not known yet.
    pub(super) fn replace_standing(&mut self, standing: StandingOrder) {
        self.standing = Some(standing);
    }

    fn is_standing(&self, by: &Reason) -> bool {
        self.standing
            .as_ref()
            .is_some_and(|standing| standing.by == *by)
    }

    fn has_standing(&self) -> bool {
        let standing = self.standing.as_ref();
        standing.is_some_and(|standing| standing.order.is_some())
    }

    /// Nothing else is ordered: what the configuration orders is in force, or nothing is.
    fn stand(&mut self, now: Instant) -> Ticket {
        let order = self.standing.as_ref().and_then(|standing| {
            let (kind, reason) = standing.order.clone()?;
            Some(Order {
                kind,
                reason,
                by: standing.by.clone(),
                lasts: None,
            })
        });
        match order {
            Some(order) => self.give(now, Some(order)),
            None => self.keep(None),
        }
    }

    fn restore(&mut self, now: Instant, loaded: Loaded) {
        let Some(reading) = self.clock.as_ref().map(|clock| clock()) else {
            return;
        };
        let service = &self.service;
        match loaded {
            Loaded::Nothing => {}
            Loaded::Intent(saved) => match saved.clone().restore(&reading) {
                None => {
                    tracing::info!(%service, order = %saved.order, reason = %saved.reason, by = %saved.by, "an operator's order ended while this node was down");
                    self.keep(None);
                }
                Some(intent) => {
                    tracing::warn!(%service, order = %intent.order, reason = %intent.reason, by = %intent.by, left = ?intent.left(&reading), "an operator's order from before the restart stands");
                    self.take(now, &intent, &reading);
                    if intent != saved {
                        self.keep(Some(intent));
                    }
                }
            },
            Loaded::Bad { why, aside } => {
                tracing::error!(%service, reason = %why, "an operator had spoken and cannot be understood: this node stays demoted until it is undrained");
                let reason = format!("an order that cannot be read; undrain to lift it: {why}");
                let kind = OrderKind::Demote;
                let intent =
                    SavedIntent::new(kind, reason.into(), OURSELVES.into(), None, &reading);
                self.take(now, &intent, &reading);
                if aside {
                    self.keep(Some(intent));
                } else if let Some(active) = &mut self.active {
                    active.unsaved = Some("the file is left as it was found".into());
                }
            }
        }
    }

    fn take(&mut self, now: Instant, intent: &SavedIntent, reading: &ClockReading) {
        let left = intent.left(reading);
        self.active = Some(Active {
            kind: intent.order,
            reason: intent.reason.clone(),
            by: intent.by.clone(),
            given: now.checked_sub(intent.age(reading)).unwrap_or(now),
            until: left.and_then(|left| now.checked_add(left)),
            kept: Some(intent.clone()),
            unsaved: None,
        });
    }

    /// A new order, or `None` to lift what is in force: what the configuration orders stands
    /// then. What comes back tells when it is saved.
    pub(super) fn give(&mut self, now: Instant, order: Option<Order>) -> Ticket {
        let Some(order) = order else {
            self.active = None;
            return self.stand(now);
        };
        let kept = self.clock.as_ref().map(|clock| {
            let (reason, by) = (order.reason.clone(), order.by.clone());
            SavedIntent::new(order.kind, reason, by, order.lasts, &clock())
        });
        self.active = Some(Active {
            kind: order.kind,
            reason: order.reason,
            by: order.by,
            given: now,
            until: order.lasts.and_then(|lasts| now.checked_add(lasts)),
            kept: kept.clone(),
            unsaved: None,
        });
        self.keep(kept)
    }

    /// What the machine is to be told.
    pub(super) fn intent(&self) -> Intent {
        self.active.as_ref().map_or(Intent::Auto, Active::intent)
    }

    /// What the machine is to be told anew, because the host slept: its clock went on.
    pub(super) fn refresh(&mut self, now: Instant) -> Option<Intent> {
        let active = self.active.as_mut()?;
        let (until, kept) = (active.until?, active.kept.as_ref()?);
        let left = kept.left(&self.clock.as_ref()?())?;
        let by_clock = now.checked_add(left)?;
        let slept = by_clock
            .checked_add(CLOCK_SLACK)
            .is_some_and(|at| at < until);
        if !slept && !left.is_zero() {
            return None;
        }
        active.until = Some(by_clock);
        Some(active.intent())
    }

    /// Forgets an order that has ended, and its file. `Some`: the machine is to be told what
    /// the configuration orders in its place, before it decides.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Intent> {
        let over = |active: &mut Active| active.until.is_some_and(|until| until <= now);
        let ended = self.active.take_if(over)?;
        tracing::info!(service = %self.service, order = %ended.kind, reason = %ended.reason, by = %ended.by, "an operator's order has ended");
        self.stand(now);
        self.active.as_ref().map(Active::intent)
    }

    pub(super) fn snapshot(&self) -> Option<IntentSnapshot> {
        let active = self.active.as_ref()?;
        let saved = match (&active.unsaved, &self.keeper) {
            (Some(why), _) => Saved::No(why.clone()),
            (None, Some(keeper)) => keeper.saved(),
            (None, None) => Saved::No(no_folder()),
        };
        Some(IntentSnapshot {
            order: active.kind,
            reason: active.reason.clone(),
            by: active.by.clone(),
            given: active.given,
            until: active.until,
            saved,
        })
    }

    /// Waits until something was saved, or could not be; for ever where nothing is. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if let Some(keeper) = &mut self.keeper
            && keeper.outcome.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    fn keep(&mut self, intent: Option<SavedIntent>) -> Ticket {
        Ticket(self.keeper.as_ref().map(|keeper| keeper.keep(intent)))
    }
}

fn no_folder() -> Reason {
    "no state_dir is configured".into()
}

/// What the file is to hold.
#[derive(Debug, Clone, Default)]
struct Wish {
    number: u64,
    intent: Option<SavedIntent>,
}

/// What became of the wish of this number.
#[derive(Debug, Clone)]
struct Outcome {
    number: u64,
    result: Result<(), Reason>,
}

struct Keeper {
    wish: watch::Sender<Wish>,
    outcome: watch::Receiver<Outcome>,
    _task: AbortOnDrop,
}

impl Keeper {
    fn start(file: IntentFile) -> Self {
        let (wish, wishes) = watch::channel(Wish::default());
        let (tell, outcome) = watch::channel(Outcome {
            number: 0,
            result: Ok(()),
        });
        Self {
            wish,
            outcome,
            _task: spawn(keep_file(file, wishes, tell)),
        }
    }

    fn keep(&self, intent: Option<SavedIntent>) -> (u64, watch::Receiver<Outcome>) {
        let mut number = 0;
        self.wish.send_modify(|wish| {
            number = wish.number + 1;
            *wish = Wish { number, intent };
        });
        (number, self.outcome.clone())
    }

    fn saved(&self) -> Saved {
        let outcome = self.outcome.borrow();
        if outcome.number < self.wish.borrow().number {
            return Saved::Pending;
        }
        outcome.as_saved()
    }
}

impl Outcome {
    fn as_saved(&self) -> Saved {
        match &self.result {
            Ok(()) => Saved::Yes,
            Err(reason) => Saved::No(reason.clone()),
        }
    }
}

/// Brings the file in line with the latest wish, for ever.
async fn keep_file(
    file: IntentFile,
    mut wishes: watch::Receiver<Wish>,
    tell: watch::Sender<Outcome>,
) {
    let file = Arc::new(file);
    let mut failing = false;
    if wishes.changed().await.is_err() {
        return;
    }
    loop {
        let Wish { number, intent } = wishes.borrow_and_update().clone();
        let result = write(Arc::clone(&file), intent).await;
        match &result {
            Err(reason) if !failing => {
                tracing::error!(%reason, retry = ?KEEP_RETRY, "an operator's order cannot be saved; it stands, and would not survive a restart");
            }
            Ok(()) if failing => {
                tracing::info!(path = %file.path().display(), "an operator's order is saved now");
            }
            Ok(()) | Err(_) => {}
        }
        failing = result.is_err();
        tell.send_replace(Outcome { number, result });
        let changed = if failing {
            tokio::time::timeout(KEEP_RETRY, wishes.changed()).await
        } else {
            Ok(wishes.changed().await)
        };
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

async fn write(file: Arc<IntentFile>, intent: Option<SavedIntent>) -> Result<(), Reason> {
    let work = move || match intent {
        Some(intent) => file.save(&intent),
        None => file.remove(),
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string().into()),
        Err(_) => Err("writing it was broken off".into()),
    }
}

/// Tells when an order is saved.
pub(crate) struct Ticket(Option<(u64, watch::Receiver<Outcome>)>);

impl Ticket {
    /// Waits for the disk, at most [`KEEP_TIMEOUT`].
    pub(super) async fn saved(self) -> Saved {
        let Some((number, mut outcome)) = self.0 else {
            return Saved::No(no_folder());
        };
        let told = outcome.wait_for(|outcome| outcome.number >= number);
        match tokio::time::timeout(KEEP_TIMEOUT, told).await {
            Ok(Ok(outcome)) => outcome.as_saved(),
            Ok(Err(_)) => Saved::No("the node stopped meanwhile".into()),
            Err(_) => Saved::No(format!("the disk did not answer within {KEEP_TIMEOUT:?}").into()),
        }
    }
}
