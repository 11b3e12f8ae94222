//! Tests of which tensors lie in others.

use super::*;
use crate::model::caps::Caps;
use crate::model::concat::Concat;
use crate::model::conv::{Conv2d, Residual};
use crate::model::dtype::DType;
use crate::model::resize::Resize;
use crate::planner::workspace::Span;
use crate::planner::{Choice, Fusion, Schedule, schedule};

fn planned(chain: &Chain, input: [u32; 4], layout: Layout) -> Schedule {
    schedule(chain, input, layout, &Caps::webgpu(), &Choice::Fusion(Fusion::Never)).unwrap()
}

fn spans(schedule: &Schedule, tensors: &[usize]) -> Vec<Span> {
    tensors.iter().map(|&tensor| schedule.workspace.span(Part::Tensor(tensor)).unwrap()).collect()
}

/// What a concatenation still copies.
fn copied(schedule: &Schedule, link: usize) -> Vec<Operand> {
    schedule.steps[link].recipe.passes.iter().map(|pass| pass.operands[0]).collect()
}

/// How the shaders of a step go by views, and where.
fn viewed(schedule: &Schedule, step: usize) -> Vec<&'static str> {
    let texts = schedule.steps[step].recipe.passes.iter().map(|pass| pass.wgsl.text().unwrap());
    let all: String = texts.map(|text| text.to_string()).collect();
    let places = ["input_place", "output_place", "residual_place"];
    let found: Vec<_> = places.into_iter().filter(|place| all.contains(&format!("{place}(at: "))).collect();
    assert_eq!(schedule.workspace.has_views(step), !found.is_empty());
    found
}

/// Where a tensor's channels begin in the tensor that it lies in.
fn place(schedule: &Schedule, tensor: usize) -> Option<(usize, Place)> {
    let home = schedule.workspace.in_place.homes.get(&tensor)?;
    Some((home.outermost, home.view?.place))
}

fn pointwise(inputs: u32, outputs: u32) -> Link {
    Conv2d::pointwise(inputs, outputs).into()
}

/// Two convolutions of the first one's output, put together, and one that reads them.
fn branches() -> Chain {
    let links = [pointwise(3, 4), pointwise(4, 2), pointwise(4, 3), Concat::new([2, 3]).into(), pointwise(5, 1)];
    Chain::new(links).reads(1, 2).unwrap().concatenates([2, 3], 3).unwrap()
}

#[test]
fn branches_are_made_in_place_where_their_channels_lie_side_by_side() {
    let there = planned(&branches(), [1, 3, 8, 8], Layout::Nchw);
    let [whole, first, second] = spans(&there, &[4, 2, 3])[..] else { panic!() };
    assert_eq!((first, second.buffer), (Span { bytes: 512, ..whole }, whole.buffer));
    assert_eq!((second.offset, second.bytes, whole.bytes), (whole.offset + 512, 768, 1280));
    assert_eq!(copied(&there, 3), []);
    assert!((0..5).all(|step| viewed(&there, step).is_empty()));
    // Of 7x8 pixels the second starts at 448, which no binding does.
    let odd = planned(&branches(), [1, 3, 7, 8], Layout::Nchw);
    assert_eq!((copied(&odd, 3), place(&odd, 2), viewed(&odd, 1)), (vec![], None, vec![]));
    assert_eq!((place(&odd, 3), viewed(&odd, 2)), (Some((4, Place::Channels { first: 2 })), vec!["output_place"]));
}

#[test]
fn kernels_store_what_does_not_lie_side_by_side() {
    for (input, layout) in [([2, 3, 8, 8], Layout::Nchw), ([1, 3, 8, 8], Layout::Nhwc)] {
        let apart = planned(&branches(), input, layout);
        let [whole, first, second] = spans(&apart, &[4, 2, 3])[..] else { panic!() };
        assert!(first == whole && second == whole, "{input:?} {layout}");
        assert_eq!(copied(&apart, 3), []);
        let firsts = [2, 3].map(|tensor| place(&apart, tensor));
        assert_eq!(firsts, [0, 2].map(|first| Some((4, Place::Channels { first }))));
        assert_eq!([1, 2, 4].map(|step| viewed(&apart, step)), [vec!["output_place"], vec!["output_place"], vec![]]);
        assert_eq!(apart.workspace.bytes_without_reuse(), u64::from(input[0] * (4 + 5) * 64 * 4));
    }
}

/// The output, and the input, have tensors in them as well.
#[test]
fn tensors_lie_in_the_callers() {
    let links = [Link::Slice { channels: 1..3 }, pointwise(2, 2), pointwise(2, 3), Concat::new([2, 3]).into()];
    let chain = Chain::new(links).reads(1, 2).unwrap().concatenates([2, 3], 3).unwrap();
    for (input, layout) in [([1, 4, 5, 5], Layout::Nchw), ([3, 4, 5, 5], Layout::Nhwc)] {
        let there = planned(&chain, input, layout);
        assert_eq!([0, 3].map(|link| copied(&there, link)), [[], []]);
        assert_eq!([1, 2, 3].map(|tensor| there.workspace.outermost(tensor)), [0, 4, 4]);
        assert_eq!((viewed(&there, 2), there.workspace.bytes()), (vec!["input_place", "output_place"], 0));
    }
    // A link that reads what lies in the output cannot write there.
    let dense = Chain::new([pointwise(3, 4), pointwise(4, 4), Concat::new([4, 4]).into()]);
    let dense = planned(&dense.concatenates([1, 2], 2).unwrap(), [2, 3, 8, 8], Layout::Nchw);
    assert_eq!((copied(&dense, 2), dense.workspace.outermost(1)), (vec![Operand::Part(1)], 3));
}

#[test]
fn a_shader_that_the_driver_refuses_is_not_asked_for_again() {
    let caps = Caps::webgpu();
    let planner = crate::planner::Planner { caps: &caps, profile: &Default::default() };
    let never = Choice::Fusion(Fusion::Never);
    let there = planned(&branches(), [2, 3, 8, 8], Layout::Nchw);
    let mut refused = crate::planner::Refused::default();
    let recipe = &there.steps[2].recipe;
    refused.insert(&recipe.name, recipe.passes[0].wgsl.text().unwrap());
    let input = [2, 3, 8, 8].into();
    let without = planner.schedule_without(&refused, &branches(), input, Layout::Nchw, &never).unwrap();
    assert_eq!(without.name(), there.name());
    assert_eq!((copied(&without, 3).len(), viewed(&without, 2)), (2, vec![]));
}

#[test]
fn what_is_in_place_costs_nothing() {
    let concat = |input, layout| planned(&branches(), input, layout).steps[3].clone();
    let cost = |step: &Step| (step.recipe.work.bytes, step.recipe.work.accesses);
    let there = concat([1, 3, 8, 8], Layout::Nchw);
    assert_eq!((cost(&there), there.seconds, there.parts.seconds()), ((0.0, 0.0), 0.0, 0.0));
    assert_eq!(cost(&concat([2, 3, 7, 8], Layout::Nhwc)), (0.0, 0.0));
    // The chain's input is copied: three channels of five, in one dispatch of two.
    let chain = Chain::new([pointwise(3, 2), Concat::new([2, 3]).into(), pointwise(5, 1)]);
    let planned = planned(&chain.concatenates([1, 0], 1).unwrap(), [1, 3, 7, 8], Layout::Nchw);
    let part = &planned.steps[1];
    assert_eq!(cost(part), (2.0 * 3.0 * 224.0, 2.0 * 3.0 * 56.0));
    let all = planned.considered.iter().filter(|answer| (answer.first, answer.links) == (1, 1));
    let all = all.flat_map(|answer| answer.answer.iter().flatten()).next().unwrap();
    assert_eq!(part.parts.dispatch * 2.0, all.parts.dispatch);
    assert!(part.seconds > 0.0 && part.seconds < all.seconds());
}

#[test]
fn what_is_read_where_the_next_is_written_is_copied() {
    // Each reads what is before it, and all are put together: two of two.
    let dense = Chain::new([pointwise(3, 4), pointwise(4, 4), Concat::new([4, 4]).into(), pointwise(8, 1)]);
    let dense = dense.concatenates([1, 2], 2).unwrap();
    let there = planned(&dense, [1, 3, 8, 8], Layout::Nchw);
    assert_eq!(copied(&there, 2), [Operand::Part(1)]);
    let [whole, first, second] = spans(&there, &[3, 1, 2])[..] else { panic!() };
    assert!(first.buffer == whole.buffer && second.buffer != whole.buffer);
    // A tensor that comes twice is made in one place, and cannot be copied within the buffer.
    let twice = Chain::new([pointwise(3, 4), Concat::new([4, 4]).into(), pointwise(8, 1)]);
    let twice = planned(&twice.concatenates([1, 1], 1).unwrap(), [1, 3, 8, 8], Layout::Nchw);
    assert_eq!(copied(&twice, 1), [Operand::Input, Operand::Part(1)]);
}

#[test]
fn concatenations_lie_in_concatenations() {
    let chain = branches().then(Chain::new([pointwise(1, 4), Concat::new([4, 5]).into(), pointwise(9, 1)]));
    // The first concatenation is read again, behind the output of the link after it: that reads it, and is apart.
    let chain = chain.concatenates([6, 4], 6).unwrap();
    let there = planned(&chain, [1, 3, 8, 8], Layout::Nchw);
    let [outer, inner, first, second] = spans(&there, &[7, 4, 2, 3])[..] else { panic!() };
    assert!([inner, first, second].iter().all(|span| span.buffer == outer.buffer));
    assert_eq!([inner, first, second].map(|span| span.offset - outer.offset), [1024, 1024, 1536]);
    assert_eq!(copied(&there, 6), []);
}

/// A tensor of four channels, the first of which, the second, and the last two are read apart.
fn slices() -> Chain {
    let slice = |channels: std::ops::Range<u32>| Link::Slice { channels };
    let links = [pointwise(3, 4), slice(0..1), slice(1..2), slice(2..4), Concat::new([2, 1, 1]).into()];
    let chain = Chain::new(links).then(Chain::new([pointwise(4, 1)]));
    chain.reads(1, 2).unwrap().reads(1, 3).unwrap().concatenates([4, 2, 3], 4).unwrap()
}

#[test]
fn slices_are_read_where_they_are() {
    let there = planned(&slices(), [1, 3, 8, 8], Layout::Nchw);
    let [whole, first, second, last] = spans(&there, &[1, 2, 3, 4])[..] else { panic!() };
    let at = |span: Span| (span.buffer == whole.buffer).then(|| span.offset - whole.offset);
    assert_eq!([first, second, last].map(at), [Some(0), Some(256), Some(512)]);
    assert_eq!([1, 2, 3].map(|link| copied(&there, link)), [[], [], []]);
    // A tensor lies in one other, so they are copied where they are put together.
    assert_eq!(copied(&there, 4), [Operand::Input, Operand::Part(1), Operand::Part(2)]);
    assert_eq!(viewed(&there, 4), [""; 0]);
    // Of several images, where channels are neighbours, and from 224 on, by views.
    for (input, layout) in [([2, 3, 8, 8], Layout::Nchw), ([1, 3, 8, 8], Layout::Nhwc), ([1, 3, 7, 8], Layout::Nchw)] {
        let apart = planned(&slices(), input, layout);
        assert_eq!([1, 2, 3].map(|link| copied(&apart, link)), [[], [], []], "{input:?} {layout}");
        assert_eq!(
            (place(&apart, 3), viewed(&apart, 4)),
            (Some((1, Place::Channels { first: 1 })), vec!["input_place"])
        );
    }
}

/// Each load of a view takes time, so a reader that loads each element often reads a copy.
#[test]
fn what_is_read_often_is_copied() {
    let slice = Link::Slice { channels: 1..9 };
    let read_as = |dtype, conv: Conv2d, input: [u32; 4], layout| {
        let chain = Chain::new([pointwise(3, 9), slice.clone(), conv.into(), pointwise(8, 1)]).with_dtype(dtype);
        let named = Choice::Named("direct".into());
        copied(&schedule(&chain, input, layout, &Caps::webgpu(), &named).unwrap(), 1).len()
    };
    let read_by = |conv, input, layout| read_as(DType::F32, conv, input, layout);
    let wide = Conv2d::new(8, 8, 5).padding(2);
    assert_eq!(read_by(wide.clone(), [1, 3, 7, 9], Layout::Nchw), 0);
    assert_eq!(read_by(wide.clone(), [2, 3, 7, 9], Layout::Nchw), 1);
    assert_eq!(read_by(wide, [1, 3, 7, 9], Layout::Nhwc), 1);
    assert_eq!(read_by(Conv2d::pointwise(8, 8), [1, 3, 7, 9], Layout::Nhwc), 0);
    // A copy of halves moves half as much, and a view divides as often.
    for (dtype, copies) in [(DType::F32, 0), (DType::F16, 1)] {
        let conv = Conv2d::new(8, 8, [1, 2]).padding([0, 0, 0, 1]);
        assert_eq!(read_as(dtype, conv, [1, 3, 7, 9], Layout::Nhwc), copies, "{dtype}");
    }
}

#[test]
fn a_shuffle_is_how_the_link_before_stores() {
    let shuffle = || Link::PixelShuffle { factor: 2 };
    for (input, layout) in [([1, 3, 5, 7], Layout::Nchw), ([3, 3, 5, 7], Layout::Nchw), ([2, 3, 5, 7], Layout::Nhwc)] {
        // The output, and a tensor inside.
        let last = planned(&Chain::new([pointwise(3, 8), shuffle()]), input, layout);
        assert_eq!((copied(&last, 1), place(&last, 1)), (vec![], Some((2, Place::Shuffled { factor: 2 }))));
        assert_eq!((viewed(&last, 0), last.workspace.bytes()), (vec!["output_place"], 0));
        let work = &last.steps[1].recipe.work;
        assert_eq!((work.bytes, last.steps[1].seconds), (0.0, 0.0));
        let inner = planned(&Chain::new([pointwise(3, 8), shuffle(), pointwise(2, 3)]), input, layout);
        assert_eq!((copied(&inner, 1), viewed(&inner, 0), viewed(&inner, 2)), (vec![], vec!["output_place"], vec![]));
    }
    let undone = Chain::new([pointwise(3, 2), Link::PixelUnshuffle { factor: 2 }]);
    let undone = planned(&undone, [2, 3, 6, 8], Layout::Nhwc);
    assert_eq!((copied(&undone, 1), place(&undone, 1)), (vec![], Some((2, Place::Unshuffled { factor: 2 }))));
    // Not what the caller gives, nor what another link reads too; nor a shuffle of a shuffle, or into a concatenation.
    let planned = |chain: Chain, link| copied(&planned(&chain, [1, 8, 5, 7], Layout::Nchw), link).len();
    assert_eq!(planned(Chain::from(shuffle()), 0), 1);
    let read = Chain::new([pointwise(8, 8), shuffle(), pointwise(8, 3)]).reads(1, 2).unwrap();
    assert_eq!(planned(read, 1), 1);
    let twice = Chain::new([pointwise(8, 16), shuffle(), shuffle()]);
    assert_eq!([1, 2].map(|link| planned(twice.clone(), link)), [0, 1]);
    let chain = Chain::new([pointwise(8, 8), shuffle(), pointwise(2, 3), Concat::new([3, 2]).into()]);
    let put_together = chain.concatenates([3, 2], 3).unwrap();
    assert_eq!([1, 3].map(|link| planned(put_together.clone(), link)), [0, 1]);
}

/// A convolution that adds what another one made of half the size, enlarged.
fn enlarged(resize: Resize) -> Chain {
    let small = Conv2d::new(3, 4, 2).stride(2);
    let chain = Chain::new([small.into(), Link::from(resize), pointwise(3, 4), pointwise(4, 2)]);
    chain.reads(0, 2).unwrap().edge(2, 2, Residual::AfterActivation).unwrap()
}

#[test]
fn residuals_are_read_from_the_small_image() {
    for (input, layout) in [([1, 3, 6, 10], Layout::Nchw), ([3, 3, 6, 10], Layout::Nchw), ([3, 3, 6, 10], Layout::Nhwc)]
    {
        let there = planned(&enlarged(Resize::by(2.0)), input, layout);
        assert_eq!((copied(&there, 1), place(&there, 2)), (vec![], Some((1, Place::Enlarged { factors: [2; 2] }))));
        assert_eq!((viewed(&there, 2), viewed(&there, 3)), (vec!["residual_place"], vec![]));
        // 3 channels in and 4 out of 60 pixels, 4 of 15 added; weights and biases.
        assert_eq!(there.steps[2].recipe.work.bytes, f64::from(input[0] * (7 * 60 + 4 * 15) * 4 + (3 * 4 + 4) * 4));
        assert_eq!(there.steps[1].recipe.work.bytes, 0.0);
        let other = planned(&enlarged(Resize::by(2.0).bilinear(false)), input, layout);
        assert_eq!((copied(&other, 1), viewed(&other, 2)), (vec![Operand::Input], vec![]));
    }
    // Not if a link reads the large image too.
    let read = enlarged(Resize::by(2.0)).then(pointwise(2, 2)).then(pointwise(4, 1)).reads(2, 5).unwrap();
    assert_eq!(copied(&planned(&read, [1, 3, 6, 10], Layout::Nchw), 1), [Operand::Input]);
}
