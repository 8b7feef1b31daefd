//! Dropping every privilege that is not needed.
//!
//! What is not named as needed leaves the permitted, effective, inheritable, ambient and,
//! where allowed, bounding sets, and no new privileges can be gained. In particular root loses
//! `CAP_DAC_OVERRIDE`: file permissions bind this process whoever runs it. Programs that it
//! starts inherit nothing.

pub use rustix::thread::CapabilitySet;

use rustix::thread::{
    CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Drops all but `needed`. Call it before any thread is started: the sets belong to threads.
///
/// # Errors
/// The system's, from reading or setting the sets.
pub fn drop_all_but(needed: CapabilitySet) -> std::io::Result<()> {
    let held = capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(needed).iter() {
            // The kernel may know fewer capabilities than this program.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let kept = held.permitted & needed;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    clear_ambient_capability_set()?;
    Ok(set_no_new_privs(true)?)
}
