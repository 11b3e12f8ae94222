//! Blocks with gates: how many dispatches they take, and what of them is in memory.

use gpuconv::gpu::GpuKind;
use gpuconv::nets::{efficientnet_b0, mobilenet_v3_large};
use gpuconv::planner::{self, Schedule};
use gpuconv::{Choice, Fusion, Layout, Link};

use super::{devices, kernels, makes, plan};

/// The steps of a block with a gate, for each: from behind the last projection to the one that reads through the gate.
fn steps_of_gated_blocks(schedule: &Schedule, links: &[Link]) -> Vec<usize> {
    let is_linear = |link: usize| links[link].conv().is_some_and(|conv| conv.activation == gpuconv::Activation::None);
    let gates = links.iter().enumerate().filter(|(_, link)| matches!(link, Link::SqueezeExcite(_)));
    let of_block = |(gate, _): (usize, &Link)| {
        let first = (0..gate).rev().find(|&link| is_linear(link)).map_or(0, |link| link + 1);
        let block = first..gate + 2;
        schedule.steps.iter().filter(|step| block.contains(&step.first)).count()
    };
    gates.map(of_block).collect()
}

#[test]
fn a_block_with_a_gate_takes_three_steps_on_gpus() {
    for network in [mobilenet_v3_large(1.0, 1000).unwrap(), efficientnet_b0(1.0, 1000).unwrap()] {
        // Mali's invocations have too few registers to fuse an expansion.
        let gpus = devices().into_iter().chain(makes()).filter(|(device, caps)| !caps.is_cpu && *device != "mali-g710");
        for (device, caps) in gpus {
            let plan = |fusion| {
                let choice = Choice::Fusion(fusion);
                planner::schedule(&network.chain, [1, 3, 224, 224], Layout::Nchw, &caps, &choice).unwrap()
            };
            let fused = plan(Fusion::Always);
            let steps = steps_of_gated_blocks(&fused, network.chain.links());
            assert!(steps.len() >= 8 && steps.iter().all(|&steps| steps <= 4), "{device}: {steps:?}");
            // But for the first blocks, which have a stem before them, or no expansion.
            assert!(steps.iter().skip(1).all(|&steps| steps <= 3), "{} on {device}: {steps:?}", network.name);
            // One dispatch for each gate of MobileNetV3, whose planes are small.
            let gates = fused.steps.iter().filter(|step| step.recipe.name.starts_with("gate/"));
            assert!(network.name != "mobilenet_v3_large" || gates.clone().all(|step| step.recipe.passes.len() == 1));
            // Without scratch memory each step is one dispatch: products are not cut, and gates are not pooled before.
            let choice = Choice::Fusion(Fusion::Always).within(0);
            let single = planner::schedule(&network.chain, [1, 3, 224, 224], Layout::Nchw, &caps, &choice).unwrap();
            assert!(single.steps.iter().all(|step| step.recipe.passes.len() == 1), "{device}: {}", single.name());
            let steps = steps_of_gated_blocks(&single, network.chain.links());
            assert!(steps.iter().skip(1).all(|&steps| steps <= 3), "{} on {device}: {steps:?}", network.name);
            let auto = plan(Fusion::Auto);
            let auto = kernels(&auto);
            assert!(auto.contains(&"gate") || auto.contains(&"expand_depthwise_gate"), "{device}");
        }
    }
}

/// One workgroup that reads a whole image is the slowest part of a network on a large GPU.
#[test]
fn many_workgroups_read_what_a_gate_averages() {
    let gpu = GpuKind::Nvidia.caps();
    for (line, recipe) in
        [("gate 1x672x14x14 -> 168", "gate/pooled-256"), ("gate 1x240x28x28 -> 64", "gate/pooled-256")]
    {
        assert_eq!(plan(line, &gpu, Choice::Auto).unwrap().name(), recipe, "{line}");
    }
    let small = plan("gate 1x16x8x8 -> 8", &gpu, Choice::Auto).unwrap();
    assert_eq!(small.steps[0].recipe.passes.len(), 1, "{}", small.name());
}

/// What the fused plan of MobileNetV3 moves, the weights among it, beside that of single links.
#[test]
fn fused_plans_with_gates_move_at_most_three_fifths_of_the_bytes() {
    let network = mobilenet_v3_large(1.0, 1000).unwrap();
    let gpus = devices().into_iter().chain(makes()).filter(|(device, caps)| !caps.is_cpu && *device != "mali-g710");
    for (device, caps) in gpus {
        let bytes = |fusion| {
            let choice = Choice::Fusion(fusion);
            let plan = planner::schedule(&network.chain, [1, 3, 224, 224], Layout::Nchw, &caps, &choice).unwrap();
            plan.steps.iter().map(|step| step.recipe.work.bytes).sum::<f64>()
        };
        let (fused, single) = (bytes(Fusion::Always), bytes(Fusion::Never));
        assert!(fused <= 0.6 * single, "{device}: {fused} of {single}");
    }
}
