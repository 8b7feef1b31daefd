//! What must be true of a fleet: one function for each property.

use super::world::{MEMBERS, World, is_in_the_way, name};
use super::*;

fn replicas(world: &World) -> impl Iterator<Item = &Replica> {
    world.nodes.iter().filter_map(|node| node.replica.as_ref())
}

/// At every step: what is served of a group is a generation that somebody made whole, and all of it
/// is on the disk.
pub(super) fn groups_are_whole(world: &World) {
    for node in &world.nodes {
        for generation in node.served.values() {
            assert!(
                world.generations.contains(generation),
                "half a generation is served"
            );
            for (path, content) in generation.members() {
                assert!(
                    node.objects.contains(content),
                    "{path} is served and not there"
                );
            }
        }
    }
}

/// Once healed: equal digests, equal entries, equal views.
pub(super) fn manifests_are_equal(world: &World) {
    let mut all = replicas(world).map(Replica::manifest);
    let first = all.next().unwrap();
    let entries: Vec<_> = first.entries_after(None).collect();
    for other in all {
        assert_eq!(other.entries_after(None).collect::<Vec<_>>(), entries);
        assert_eq!(other.digest(), first.digest());
        assert_eq!(other.view(), first.view());
    }
}

/// Once healed: under every path is what the view says. What is nowhere any more, since the only
/// disk that had it was lost, or somebody replaced it there just when it won, is not expected; nor, at a mirror, that what the origin does not know
/// is removed.
pub(super) fn disks_are_as_the_view_says(world: &World) {
    let is_gone =
        |content: &ContentId| world.lost.contains(content) || world.replaced.contains(content);
    let exists = |content: &ContentId| {
        (0..world.nodes.len()).any(|at| world.holds(at, content)) || !is_gone(content)
    };
    for (at, node) in world.nodes.iter().enumerate() {
        let view = node.replica.as_ref().unwrap().manifest().view();
        let is_whole = MEMBERS.iter().all(|member| {
            let content = view.get(&name(member));
            content.is_none_or(exists)
        });
        for (path, content) in &view {
            let is_member = MEMBERS.contains(&path.as_str());
            // At a mirror, what the origin does not know may be in the way.
            let is_blocked = world.is_origin && is_in_the_way(&node.files, path);
            if exists(content) && (is_whole || !is_member) && !is_blocked {
                let replica = node.replica.as_ref().unwrap();
                assert_eq!(
                    node.files.get(path),
                    Some(content),
                    "{path} at n{at}: holders {:?}, has {:?}, {}",
                    (0..world.nodes.len())
                        .filter(|at| world.holds(*at, content))
                        .collect::<Vec<_>>(),
                    replica.on_disk(path),
                    replica.explain(),
                );
            }
        }
        for (path, content) in &node.files {
            let is_stray = world.is_origin && at > 0;
            let is_waiting = view.get(path).is_some_and(|wanted| !exists(wanted));
            let is_half = MEMBERS.contains(&path.as_str()) && !is_whole;
            assert!(
                is_stray || is_waiting || is_half || view.get(path) == Some(content),
                "{path} is at n{at} and should not be"
            );
        }
    }
}

/// Once healed: what was written, and nobody replaced or deleted who had it before him, is there.
/// This includes F10: a disk that was lost or wiped deletes nothing.
pub(super) fn nothing_is_lost(world: &World) {
    let view = world.nodes[0].replica.as_ref().unwrap().manifest().view();
    let shown: BTreeSet<ContentId> = view.values().copied().collect();
    for content in &world.written {
        let is_expected = !world.replaced.contains(content) && !world.lost.contains(content);
        assert!(
            !is_expected || shown.contains(content),
            "{content:?} is lost"
        );
    }
}

/// Once healed: digest and view do not depend on how the manifest came to be.
pub(super) fn a_manifest_is_what_its_entries_are(world: &World) {
    let known = world.nodes[0].replica.as_ref().unwrap().manifest();
    let mut entries: Vec<(Key, _)> = known.entries_after(None).collect();
    entries.reverse();
    let mut anew = Manifest::new(usize::MAX);
    for (key, entry) in &entries {
        anew.merge(key, entry).unwrap();
    }
    assert_eq!(anew.digest(), known.digest());
    assert_eq!(anew.view(), known.view());
}

/// Once healed: nobody waits for anything, unless something is nowhere any more.
pub(super) fn all_are_ready(world: &mut World) {
    let now = world.instant();
    let view = world.nodes[0].replica.as_ref().unwrap().manifest().view();
    let exists = |content: &ContentId| (0..world.nodes.len()).any(|at| world.holds(at, content));
    let is_blocked = |path: &FileName| {
        let mut nodes = world.nodes.iter();
        world.is_origin && nodes.any(|node| is_in_the_way(&node.files, path))
    };
    if !view.values().all(exists) || view.keys().any(is_blocked) {
        return;
    }
    for node in &mut world.nodes {
        let status = node.replica.as_mut().unwrap().status(now);
        let explain = node.replica.as_ref().map(Replica::explain);
        assert!(status.ready, "{}: {explain:?}", status.reason);
    }
}
