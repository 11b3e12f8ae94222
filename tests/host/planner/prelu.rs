//! PReLU behind convolutions: when it is their activation, and what that saves.

use gpuconv::nets::srvgg;
use gpuconv::planner;
use gpuconv::{Activation, Chain, Choice, Conv2d, Fusion, Layout, PRelu};

use super::{devices, kernels};

#[test]
fn slopes_take_no_dispatch_of_their_own() {
    let (network, input) = (srvgg(4, 1.0, 3).unwrap(), [1, 3, 32, 32]);
    for (device, caps) in devices() {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let plan = |fusion| {
                let choice = Choice::Fusion(fusion);
                planner::schedule(&network.chain, input, layout, &caps, &choice).unwrap()
            };
            let [auto, never] = [Fusion::Auto, Fusion::Never].map(plan);
            let alone = |schedule| kernels(schedule).into_iter().filter(|kernel| *kernel == "prelu").count();
            assert_eq!([alone(&auto), alone(&never)], [0, 17], "{device} {layout}");
            assert_eq!(auto.steps.len() + 17, never.steps.len());
            let bytes = |schedule: &planner::Schedule| -> f64 {
                schedule.steps.iter().map(|step| step.recipe.work.bytes).sum()
            };
            // A tensor of 64 channels is read and written once less for each.
            let saved = 17.0 * 2.0 * 64.0 * 32.0 * 32.0 * 4.0;
            assert!(bytes(&never) - bytes(&auto) >= saved * 0.99, "{device} {layout}: {saved}");
        }
    }
}

#[test]
fn a_prelu_stays_alone_where_it_is_no_activation() {
    let conv = |activation| Conv2d::new(4, 4, 3).padding(1).activation(activation);
    let pair = |activation| Chain::from(conv(activation)).then(PRelu::new(4));
    let read_before = pair(Activation::None).then(conv(Activation::None)).reads(1, 2).unwrap();
    for (name, chain, expected) in [
        ("no other activation", pair(Activation::None), 1),
        ("another activation", pair(Activation::Relu), 2),
        ("a later link reads what it reads", read_before, 3),
        ("nothing before it", Chain::from(PRelu::new(4)), 1),
        ("two in a row", pair(Activation::None).then(PRelu::new(4)), 2),
    ] {
        for (device, caps) in devices() {
            let choice = Choice::Fusion(Fusion::Always);
            let schedule = planner::schedule(&chain, [1, 4, 8, 8], Layout::Nchw, &caps, &choice).unwrap();
            assert_eq!(schedule.steps.len(), expected, "{name}, {device}: {}", schedule.name());
        }
    }
}
