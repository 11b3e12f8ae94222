//! What is said of chains that have no schedule.

use super::Considered;
use super::cut::{Wanted, is_called};
use crate::kernels::{KERNELS, TAKE_ALL, Unsupported};
use crate::model::chain::Chain;
use crate::model::error::{Error, Result};
use crate::model::shape::Shape;

/// Refuses names that no kernel and no recipe has.
pub fn check_names(considered: &[Considered], wanted: &[&str]) -> Result<()> {
    let recipes =
        || considered.iter().flat_map(|answer| answer.answer.iter().flatten()).map(|candidate| &candidate.recipe.name);
    let known = |name: &str| KERNELS.iter().any(|kernel| kernel.name == name) || recipes().any(|known| known == name);
    match wanted.iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => {
            let mut known: Vec<String> = recipes().cloned().collect();
            known.extend(KERNELS.iter().map(|kernel| kernel.name.into()));
            known.sort();
            known.dedup();
            Err(Error::UnknownKernel { name: name.to_string(), known })
        }
    }
}

/// The error of a chain that no allowed recipes compute.
pub fn no_schedule(chain: &Chain, input: Shape, considered: Vec<Considered>, wanted: &Wanted<'_>) -> Error {
    let links = chain.links().len();
    let covers = |answer: &Considered, link: usize| (answer.first..answer.first + answer.links).contains(&link);
    // Of a chain the first link that nothing computes is what there is to say.
    let missing =
        (0..links).find(|&link| !considered.iter().any(|answer| covers(answer, link) && answer.answer.is_ok()));
    let is_wanted = |kernel: &str| wanted.names().iter().any(|name| is_called(name, kernel));
    let mut rejected: Vec<(String, Unsupported)> = Vec::new();
    for answer in considered.into_iter().filter(|answer| missing.is_none_or(|link| covers(answer, link))) {
        let reason = match answer.answer {
            Err(reason) => reason,
            Ok(candidates) => {
                let needed = candidates.iter().map(|candidate| candidate.recipe.workspace.iter().sum()).min();
                let limit = wanted.workspace();
                let Some(needed) = needed.filter(|&needed| needed > limit) else { continue };
                Unsupported::Workspace { needed, limit }
            }
        };
        // That a kernel is for links of another kind explains nothing, unless it was asked for.
        if matches!(reason, Unsupported::Link(_)) && !is_wanted(answer.kernel) {
            continue;
        }
        // Where every link has a kernel, but not one that was asked for, each kernel has its say once.
        if missing.is_some() || rejected.iter().all(|(kernel, _)| kernel != answer.kernel) {
            rejected.push((answer.kernel.to_string(), reason));
        }
    }
    // And of these only those that were asked for, if they said anything.
    if missing.is_none() && rejected.iter().any(|(kernel, _)| is_wanted(kernel)) {
        rejected.retain(|(kernel, _)| is_wanted(kernel));
    }
    let problem = match missing {
        _ if links == 1 => "a link".into(),
        Some(link) => format!("link {link} of a chain of {links}"),
        None => format!("a chain of {links}"),
    };
    let names = wanted.names().len();
    let fewer = if names > links { format!(", fewer links than the {names} kernels") } else { String::new() };
    let problem = format!("{problem} on {input}{fewer}");
    // What a kernel refuses that takes every link of a kind is too large for any.
    match rejected.iter().find(|(kernel, _)| TAKE_ALL.contains(&kernel.as_str())) {
        Some((_, Unsupported::Binding { what, bytes, limit })) if missing.is_some() => {
            let what = format!("a binding for the {what} of {problem}, in bytes,");
            Error::TooLarge { what, needed: *bytes, limit: *limit }
        }
        Some((_, Unsupported::Grid { needed, limit })) if missing.is_some() => {
            Error::TooLarge { what: format!("the grid of {problem}"), needed: *needed, limit: *limit }
        }
        _ => Error::NoKernel { problem, named: names > 0, rejected },
    }
}
