//! What kernels share whose invocations compute one output each, without weights.

use minijinja::{Value, context};

use super::{Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Recipe, Run, Wgsl, Work};
use crate::kernels::elements::Elements;
use crate::kernels::shader;
use crate::model::shape::Layout;

/// Invocations of a workgroup.
pub const WORKGROUP: u32 = 64;

/// What `tensors.wgsl` and their shaders ask for, but for `geometry`.
pub fn values(layout: Layout, elements: Elements) -> Value {
    context! {
        WORKGROUP,
        elements => elements.values(),
        layout => shader::layout_name(layout),
        input => "scalar",
        weights => "none",
        output => "scalar",
        residual => "none",
    }
}

/// The dispatch: an invocation for each output.
pub fn pass(run: &Run<'_>, wgsl: Wgsl) -> Pass {
    let output = run.output();
    Pass {
        wgsl,
        operands: vec![Operand::Input, Operand::Output],
        params: Params { tiles_x: output.width, tiles_y: output.height, work: output.len() as u32, ..Params::of(run) },
        workgroup: WORKGROUP,
        workgroups: output.len().div_ceil(WORKGROUP.into()),
        workgroup_memory: 0,
        sums: 1,
        registers: REGISTERS_FOR_ADDRESSES,
    }
}

/// The recipe of that dispatch, whose invocations read this many values each: exact, without rounding.
pub fn recipe(run: &Run<'_>, name: String, pass: Pass, reads: f64) -> Recipe {
    let outputs = run.output().len() as f64;
    Recipe {
        name,
        passes: vec![pass],
        weights: Vec::new(),
        workspace: Vec::new(),
        work: Work {
            mult_adds: outputs * reads,
            accesses: outputs * (reads + 1.0),
            shared: 0.0,
            bytes: (run.input_bytes() + run.output_bytes()) as f64,
        },
        tolerance: 0.0,
        exact: true,
        spreads_errors: false,
    }
}
