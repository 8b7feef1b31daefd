//! A process that is killed while it stages, installs and removes, and another that looks at what
//! it left.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// Tells the test that it is the one to be killed, and where.
const VICTIM: &str = "ANYCAST_TFTP_FOLDER_VICTIM";
const NAMES: u32 = 5;
const ROUNDS: usize = 24;

/// What a file may hold: its own number, so that a mixture of two shows.
fn content(number: u32) -> Vec<u8> {
    number.to_string().repeat(3000).into_bytes()
}

fn path(number: u32) -> String {
    let file = number % NAMES;
    if file.is_multiple_of(2) {
        format!("f{file}")
    } else {
        format!("d{file}/e/f{file}")
    }
}

/// Says what it begins and what was confirmed, for ever.
fn be_killed(place: &str) {
    let place = Path::new(place);
    let folder = Folder::open(&place.join("root"), &place.join("state")).unwrap();
    let full = ScanOptions {
        is_full: true,
        ..ScanOptions::default()
    };
    scan_with(&folder, Scope::All, full);
    let first = std::env::var("FIRST").unwrap().parse().unwrap();
    for number in first.. {
        let path = path(number);
        let old = folder.content_at(&name(&path));
        println!("\nbegin {number}");
        if let (Some(expecting), 0) = (old, number % 7) {
            let keeps_old = number % 2 == 0;
            let name = name(&path);
            let one = Removal {
                name,
                expecting,
                keeps_old,
            };
            folder.remove(&[one]).remove(0).unwrap();
            println!("\nremoved {number}");
            continue;
        }
        let new = bring(&folder, content(number));
        let one = Put {
            keeps_old: number % 3 == 0,
            keeps_new: number % 4 == 0,
            ..put(&path, new, old)
        };
        folder.install(&[one]).remove(0).unwrap();
        println!("\nhas {number}");
        folder.save().unwrap();
        if number % 11 == 0 {
            sweep(&folder, &[], &[], 0);
        }
    }
}

/// Starts a victim and kills it after some lines; says what it said.
fn kill_one(place: &Path, first: u32, lines: usize) -> Vec<String> {
    let test = "sync::folder::tests::crash::a_kill_at_any_moment_leaves_every_path_old_or_new";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command.env(VICTIM, place).env("FIRST", first.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    let is_word = |line: &String| {
        ["begin", "removed", "has"]
            .iter()
            .any(|word| line.starts_with(word))
    };
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut heard = out.lines().map(Result::unwrap).filter(is_word);
    said.extend(heard.by_ref().take(lines));
    child.kill().unwrap();
    // What it said before it died.
    said.extend(heard);
    child.wait().unwrap();
    said
}

#[test]
fn a_kill_at_any_moment_leaves_every_path_old_or_new() {
    if let Ok(place) = std::env::var(VICTIM) {
        return be_killed(&place);
    }
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    std::fs::create_dir(&root).unwrap();
    // What each path may hold: what was confirmed last, or what was begun since.
    let mut allowed: BTreeMap<String, Vec<Option<u32>>> = BTreeMap::new();
    let mut next = 0;
    for round in 0..ROUNDS {
        let said = kill_one(place.path(), next, 4 + round * 5 % 31);
        assert!(said.len() >= 4, "{said:?}");
        for line in &said {
            let (word, number) = line.split_once(' ').unwrap();
            let number: u32 = number.parse().unwrap();
            let states = allowed.entry(path(number)).or_insert_with(|| vec![None]);
            match word {
                "begin" => states.extend(
                    [Some(number), None]
                        .iter()
                        .take(1 + usize::from(number.is_multiple_of(7))),
                ),
                "has" => *states = vec![Some(number)],
                _ => *states = vec![None],
            }
            next = number + 1;
        }
        let folder = Folder::open(&root, &place.path().join("state")).unwrap();
        let full = ScanOptions {
            is_full: true,
            ..ScanOptions::default()
        };
        let (found, report) = scan_with(&folder, Scope::All, full);
        assert_eq!(report.troubles, []);
        let found: BTreeMap<_, _> = found.into_iter().collect();
        for (path, states) in &mut allowed {
            let is = found.get(path).copied();
            let matching = |state: &Option<u32>| state.map(|number| id(content(number))) == is;
            assert!(states.iter().any(matching), "{path}: {states:?} {is:?}");
            states.retain(matching);
            states.dedup();
        }
        assert!(found.keys().all(|path| allowed.contains_key(path)));
        sweep(&folder, &[], &[], 0);
        for part in [&folder.objects, &folder.staging] {
            assert_eq!(objects::names(part).unwrap(), [""; 0]);
        }
    }
}
