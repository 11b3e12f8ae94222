//! Tests that no kernel reads workgroup memory before writing it, since the memory need not be zero at the start.
//! Shaders that first fill it with NaNs must give the same results.

use std::sync::Arc;

use gpuconv::planner::Schedule;
use gpuconv::verify::Oracle;
use proptest::prelude::*;

use super::draw::{self, Case, Device, Subject};
use super::{draw_and_check, for_each_subject, verdict};

#[test]
#[ignore = "takes minutes"]
fn workgroup_memory_is_written_before_it_is_read() {
    let subjects =
        prop_oneof![draw::convolutions(), draw::pointwise(), draw::separable(), draw::chains(), draw::pools()];
    // The recipes for GPUs use workgroup memory most.
    let cases = draw::cases(subjects).prop_map(|case| Case { device: Device::Gpu, ..case });
    let has_some = |schedule: &Schedule| {
        schedule.steps.iter().flat_map(|step| &step.recipe.passes).any(|pass| pass.workgroup_memory > 0)
    };
    draw_and_check(12, 50, cases, |gpu, case| {
        for_each_subject(gpu, case, has_some, |gpu, subject, schedule| {
            let mut schedule = schedule.clone();
            poison(&mut schedule);
            let Subject { name, chain, input, layout } = subject;
            let oracle = Oracle::of_chain(name, chain.clone(), *input, *layout, u64::MAX)?;
            // SAFETY: the added code fills arrays from their first element to their last.
            let report = unsafe { oracle.check_as_it_is(gpu, &schedule) }?;
            Ok(verdict(report))
        })
    });
}

/// Makes each shader of a schedule first fill its workgroup memory with NaNs.
fn poison(schedule: &mut Schedule) {
    for pass in schedule.steps.iter_mut().flat_map(|step| &mut step.recipe.passes) {
        let mut wgsl = pass.wgsl.text().unwrap().to_string();
        let arrays: Vec<_> = wgsl
            .lines()
            .filter_map(array)
            .map(|(name, of, len)| {
                format!(
                    "for (var at = local; at < {len}; at += {}u) {{ {name}[at] = {of}(not_a_number()); }}\n",
                    pass.workgroup
                )
            })
            .collect();
        assert_eq!(arrays.is_empty(), pass.workgroup_memory == 0, "{wgsl}");
        if arrays.is_empty() {
            continue;
        }
        let at = wgsl.find("fn main(").and_then(|at| Some(at + wgsl[at..].find(") {")? + 3)).unwrap();
        wgsl.insert_str(at, &format!("\n{}workgroupBarrier();\n", arrays.concat()));
        // It uses a parameter, because WGSL has no NaN constants.
        wgsl += "fn not_a_number() -> f32 { return bitcast<f32>(max(params.batch, 0x7fc5a5a5u)); }\n";
        pass.wgsl = Arc::<str>::from(wgsl).into();
    }
}

/// The name, element type and length of the array that a line declares in workgroup memory.
fn array(line: &str) -> Option<(&str, &str, &str)> {
    let (name, array) = line.strip_prefix("var<workgroup> ")?.split_once(": array<")?;
    let (of, len) = array.strip_suffix(">;")?.split_once(", ")?;
    Some((name, of, len))
}
