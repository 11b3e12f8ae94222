//! Tensors that are made where a concatenation would copy them to, and slices that are read where they are.
//!
//! In NCHW the channels of a tensor lie side by side in the concatenation of a single image, and those of a slice in what it
//! is of. If they start at an offset that a binding may have, the step that makes or reads the tensor is bound there. Images
//! of a batch, and channels in NHWC, lie apart: kernels would have to go by other strides than the tensor's.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::Part;
use crate::kernels::{Operand, Pass, Recipe, channels};
use crate::model::chain::{Chain, Link};
use crate::model::shape::{Layout, Shape};
use crate::planner::Step;

/// The steps of a chain, with the shapes of its tensors.
#[derive(Clone, Copy)]
pub struct Steps<'a> {
    pub chain: &'a Chain,
    pub shapes: &'a [Shape],
    pub steps: &'a [Step],
}

/// Where a tensor lies in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    whole: usize,
    /// Bytes from its start.
    offset: u64,
    pub bytes: u64,
}

/// The tensors that lie in others, and the passes that would copy them there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InPlace {
    tensors: HashMap<usize, Inside>,
    /// Each by its step and its number there.
    copies: HashSet<(usize, usize)>,
}

impl InPlace {
    /// The largest tensors first, as many as can lie where they belong.
    pub fn new(steps: Steps<'_>, layout: Layout, alignment: u64) -> Self {
        let mut found = Self::default();
        let mut wanted = steps.wanted(layout, alignment);
        wanted.sort_by_key(|&(_, _, inside)| Reverse(inside.bytes));
        for (tensor, copy, inside) in wanted {
            if found.tensors.contains_key(&tensor) {
                continue;
            }
            found.tensors.insert(tensor, inside);
            found.copies.insert(copy);
            if steps.passes().any(|pass| found.is_in_the_way(steps, pass)) {
                found.tensors.remove(&tensor);
                found.copies.remove(&copy);
            }
        }
        found
    }

    /// The recipe of a step without these copies; none if it is as it was.
    pub fn shortened(&self, step: usize, recipe: &Recipe) -> Option<Recipe> {
        let is_shorter = self.copies.iter().any(|&(other, _)| other == step);
        is_shorter.then(|| channels::without(recipe, |pass| self.has_copied(step, pass)))
    }

    /// Whether a step's pass would copy what is there already.
    fn has_copied(&self, step: usize, pass: usize) -> bool {
        self.copies.contains(&(step, pass))
    }

    /// Where a tensor lies, if that is in another.
    pub fn inside(&self, part: Part) -> Option<Inside> {
        match part {
            Part::Tensor(tensor) => self.tensors.get(&tensor).copied(),
            Part::Scratch(..) => None,
        }
    }

    /// What a part lies in that lies in nothing else, and its bytes from the start of that.
    pub fn outermost(&self, part: Part) -> (Part, u64) {
        let (mut part, mut offset) = (part, 0);
        // A slice lies in an earlier tensor, and that, or another, in a later one.
        while let Some(inside) = self.inside(part) {
            part = Part::Tensor(inside.whole);
            offset += inside.offset;
        }
        (part, offset)
    }

    /// Whether a pass would read and write parts of the same, which wgpu allows not even apart from each other.
    fn is_in_the_way(&self, steps: Steps<'_>, (step, number, pass): (usize, usize, &Pass)) -> bool {
        let parts = |writes: bool| {
            let operands = pass.operands.iter().filter(move |operand| operand.is_written() == writes);
            operands.filter_map(move |&operand| Some(self.outermost(steps.part(step, operand)?.0).0))
        };
        !self.has_copied(step, number) && parts(false).any(|read| parts(true).any(|written| written == read))
    }
}

impl<'a> Steps<'a> {
    /// All passes, each with its step and its number there.
    fn passes(self) -> impl Iterator<Item = (usize, usize, &'a Pass)> {
        let passes = |(step, own): (usize, &'a Step)| {
            own.recipe.passes.iter().enumerate().map(move |(number, pass)| (step, number, pass))
        };
        self.steps.iter().enumerate().flat_map(passes)
    }

    /// Whether a tensor is neither the chain's input nor its output.
    fn is_inner(self, tensor: usize) -> bool {
        (1..self.shapes.len() - 1).contains(&tensor)
    }

    /// The part of a workspace that an operand of a step is, and its bytes; none if it is the caller's or holds weights.
    pub fn part(self, step: usize, operand: Operand) -> Option<(Part, u64)> {
        let Step { first, links, ref recipe, .. } = self.steps[step];
        let tensor = match operand {
            Operand::Weights => None,
            Operand::Input => Some(self.chain.input_of(first)),
            Operand::Part(place) => self.chain.concatenated(first).get(place).copied(),
            Operand::Scale => self.chain.scale_of(first),
            Operand::Output => Some(first + links),
            Operand::Kept(link) => Some(first + link + 1),
            Operand::Residual => self.chain.added(&(first..first + links)),
            Operand::ReadWorkspace(which) | Operand::WriteWorkspace(which) => {
                return Some((Part::Scratch(step, which), recipe.workspace[which]));
            }
        };
        let tensor = tensor.filter(|&tensor| self.is_inner(tensor))?;
        Some((Part::Tensor(tensor), self.shapes[tensor].bytes(self.chain.dtype())))
    }

    /// The tensors that may lie in others, each with the pass that would copy it.
    fn wanted(self, layout: Layout, alignment: u64) -> Vec<(usize, (usize, usize), Inside)> {
        let dtype = self.chain.dtype();
        let mut wanted = Vec::new();
        for (step, own) in self.steps.iter().enumerate() {
            let (input, output) = (self.chain.input_of(own.first), own.first + own.links);
            if layout != Layout::Nchw || self.shapes[output].batch != 1 {
                continue;
            }
            let mut may_lie = |pass: usize, tensor: usize, whole: usize, offset: u64| {
                let bytes = self.shapes[tensor].bytes(dtype);
                // Words of memory belong to one tensor.
                let is_aligned = offset.is_multiple_of(alignment.max(4)) && bytes.is_multiple_of(4);
                if is_aligned && self.is_inner(tensor) && self.is_inner(whole) {
                    wanted.push((tensor, (step, pass), Inside { whole, offset, bytes }));
                }
            };
            match &self.chain.links()[own.first] {
                Link::Concat(_) => {
                    let mut offset = 0;
                    // The kernel has a pass for each tensor, in their order.
                    for (pass, tensor) in self.chain.concatenated(own.first).into_iter().enumerate() {
                        may_lie(pass, tensor, output, offset);
                        offset += self.shapes[tensor].bytes(dtype);
                    }
                }
                Link::Slice { channels } => {
                    let before = Shape { channels: channels.start, ..self.shapes[input] };
                    may_lie(0, output, input, before.bytes(dtype));
                }
                _ => {}
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::caps::Caps;
    use crate::model::concat::Concat;
    use crate::model::conv::Conv2d;
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
        // Not of several images, nor where channels are neighbours.
        for (input, layout) in [([2, 3, 8, 8], Layout::Nchw), ([1, 3, 8, 8], Layout::Nhwc)] {
            let apart = planned(&branches(), input, layout);
            assert_eq!(copied(&apart, 3), [Operand::Input, Operand::Part(1)], "{input:?} {layout}");
            assert!(apart.workspace.bytes_without_reuse() > there.workspace.bytes_without_reuse());
        }
        // Of 7x8 pixels the second would start at 448.
        assert_eq!(copied(&planned(&branches(), [1, 3, 7, 8], Layout::Nchw), 3), [Operand::Part(1)]);
    }

    #[test]
    fn what_is_in_place_costs_nothing() {
        let concat = |input, layout| planned(&branches(), input, layout).steps[3].clone();
        let cost = |step: &Step| (step.recipe.work.bytes, step.recipe.work.accesses);
        let there = concat([1, 3, 8, 8], Layout::Nchw);
        assert_eq!((cost(&there), there.seconds, there.parts.seconds()), ((0.0, 0.0), 0.0, 0.0));
        let apart = concat([1, 3, 8, 8], Layout::Nhwc);
        assert_eq!(cost(&apart), (2.0 * 5.0 * 256.0, 2.0 * 5.0 * 64.0));
        // Three channels of five, in one dispatch of two.
        let (odd, all) = (concat([1, 3, 7, 8], Layout::Nchw), concat([1, 3, 7, 8], Layout::Nhwc));
        assert_eq!(cost(&odd), (2.0 * 3.0 * 224.0, 2.0 * 3.0 * 56.0));
        assert_eq!(odd.parts.dispatch * 2.0, all.parts.dispatch);
        assert!(odd.seconds > 0.0 && odd.seconds < all.seconds);
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
        // Batches and channels side by side are copied, and so is what starts at 224.
        for (input, layout) in [([2, 3, 8, 8], Layout::Nchw), ([1, 3, 8, 8], Layout::Nhwc)] {
            let apart = planned(&slices(), input, layout);
            assert_eq!([1, 2, 3].map(|link| copied(&apart, link).len()), [1; 3], "{input:?} {layout}");
        }
        assert_eq!([1, 2].map(|link| copied(&planned(&slices(), [1, 3, 7, 8], Layout::Nchw), link).len()), [0, 1]);
    }
}
