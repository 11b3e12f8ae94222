//! Copies between a tensor and a band of it. No kernel for links: [`Division`](crate::planner::Division)s have it, where
//! a band cannot be bound as it lies in its tensor.

use minijinja::context;

use super::{Operand, Pass, REGISTERS_FOR_ADDRESSES, Wgsl};

/// Its name, for pipelines.
pub const NAME: &str = "copy";

const WORKGROUP: u32 = 64;
/// Elements that an invocation copies.
const STEPS: u32 = 8;

/// The parameter block: `Params` of `copy.wgsl`, number for number. Sizes are in elements, of a word or of four.
///
/// It is no longer than [`super::Params`], so that pipelines are compiled ahead in the same way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Params {
    /// Extents of the box, the outermost first; the elements of the last lie side by side.
    pub extents: [u32; 4],
    /// Where the box starts in what is read, then the distances of its outer extents there. Where the box starts outside of
    /// the tensor, this wraps around.
    pub reads: [u32; 4],
    /// The same in what is written.
    pub writes: [u32; 4],
    /// From where on each extent is there to be read.
    pub least: [u32; 4],
    /// How much of each is there. What is not there is zero.
    pub count: [u32; 4],
}

const _: () = assert!(size_of::<Params>() <= size_of::<super::Params>());

impl Params {
    /// Workgroups that copy it all.
    pub fn workgroups(&self) -> u64 {
        let [outer @ .., run] = self.extents.map(u64::from);
        outer.iter().product::<u64>() * run.div_ceil(u64::from(WORKGROUP * STEPS))
    }
}

/// The dispatch, but for its parameters and its grid. With `quads` an element is four words.
pub fn pass(quads: bool) -> Pass {
    let values = move || {
        let element = if quads { "vec4<u32>" } else { "u32" };
        context! { recipe => NAME, WORKGROUP, STEPS, ELEMENT => element }
    };
    Pass {
        wgsl: Wgsl::template("copy.wgsl", values),
        operands: vec![Operand::Input, Operand::Output],
        params: super::Params::default(),
        workgroup: WORKGROUP,
        workgroups: 1,
        workgroup_memory: 0,
        sums: 1,
        registers: REGISTERS_FOR_ADDRESSES,
    }
}

/// Both, for tests of shaders as text.
pub fn passes() -> impl Iterator<Item = Pass> {
    [false, true].into_iter().map(pass)
}
