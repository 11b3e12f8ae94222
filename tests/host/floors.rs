//! A module of the library imports only from those below it, and only the runtime and the modules above it use wgpu.
//! `docs/architecture.md` has the table of these floors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The floors, from the lowest up.
const FLOORS: [&str; 9] = ["model", "oracle", "nets", "problem", "kernels", "planner", "runtime", "verify", "tuning"];

/// Each file with its floor, and its code without comments and tests.
fn files() -> Vec<(PathBuf, usize, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let inside = path.strip_prefix(&root).unwrap();
            let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            if path.is_dir() {
                folders.push(path);
            } else if module != "lib" {
                let floor = FLOORS.iter().position(|floor| *floor == module);
                let floor = floor.unwrap_or_else(|| panic!("{} is on no floor", inside.display()));
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
                files.push((inside.to_path_buf(), floor, code.join("\n")));
            }
        }
    }
    files
}

#[test]
fn no_floor_imports_from_one_above() {
    let (mut imports, mut wrong) = (BTreeSet::new(), Vec::new());
    for (path, floor, code) in files() {
        for rest in code.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let from = FLOORS.iter().position(|floor| *floor == name);
            match from {
                Some(from) if from <= floor => {
                    imports.insert((floor, from));
                }
                // This includes items that lib.rs re-exports: their paths name no floor.
                _ => wrong.push(format!("{} imports crate::{name}", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(imports.len() > FLOORS.len(), "only {imports:?} were found");
}

#[test]
fn only_the_runtime_and_floors_above_it_use_wgpu() {
    let runtime = FLOORS.iter().position(|floor| *floor == "runtime").unwrap();
    let users = files().into_iter().filter(|(_, _, code)| code.contains("wgpu::"));
    let (above, below): (Vec<_>, Vec<_>) =
        users.map(|(path, floor, _)| (floor, path)).partition(|(floor, _)| *floor >= runtime);
    assert!(above.len() > 5, "only {above:?}");
    assert!(below.is_empty(), "{below:?}");
}

/// In a browser nothing can block, there are no other threads, and the standard library's clock panics.
#[test]
fn blocking_clocks_and_threads_are_each_in_one_place() {
    let places = [
        ("pollster", "runtime/block.rs"),
        ("time::Instant", "runtime/clock.rs"),
        ("time::{Duration, Instant", "runtime/clock.rs"),
        ("std::thread", "runtime/threads.rs"),
        ("device.poll(", "runtime/device.rs"),
        ("std::fs", "nowhere"),
    ];
    let mut found = BTreeSet::new();
    for (path, _, code) in files() {
        for (what, place) in places.iter().filter(|(what, _)| code.contains(what)) {
            assert!(path.ends_with(place), "{} has {what}, which belongs to {place}", path.display());
            found.insert(*place);
        }
    }
    assert_eq!(found.len(), 4, "only {found:?} were found");
}
