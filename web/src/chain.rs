//! Chains, by problem lines.

use gpuconv::{Chain, Link, Problem, Residual};
use js_sys::Array;
use wasm_bindgen::{JsCast, JsValue};

use crate::js::{failed, refused, string};
use crate::options::{Options, text, whole};

/// What a line says, or several in a row, each a line or an object with a line and the tensors that it takes besides
/// the output of the step before.
pub fn chain(lines: &JsValue) -> Result<Chain, JsValue> {
    let Some(steps) = lines.dyn_ref::<Array>() else { return Ok(problem(lines)?.chain()) };
    let mut chain = Chain::new::<Link>([]);
    let mut problems = Vec::new();
    // The tensors that steps count: the input, then the output of each.
    let mut tensors = vec![0];
    for step in steps.iter() {
        let fields = if step.as_string().is_some() { JsValue::UNDEFINED } else { step.clone() };
        let options = Options::of("a step", &fields, &["problem", "reads", "adds", "scaledBy"])?;
        let line = if fields.is_undefined() { step } else { options.get("problem") };
        let (problem, first) = (problem(&line)?, chain.links().len());
        if problems.is_empty() {
            chain = chain.with_dtype(problem.dtype);
        }
        chain = chain.then(problem.chain());
        let last = chain.links().len() - 1;
        let tensor = |name: &str| match options.get(name) {
            index if index.is_undefined() => Ok(None),
            index => {
                let found = whole(&index).and_then(|index| tensors.get(index as usize)).copied();
                let count = problems.len();
                found.map(Some).ok_or_else(|| {
                    refused(&format!(
                        "{name} of step {} must be a tensor from 0 to {count}, not {}",
                        count + 1,
                        text(&index)
                    ))
                })
            }
        };
        let (reads, adds, scaled_by) = (tensor("reads")?, tensor("adds")?, tensor("scaledBy")?);
        if let Some(source) = reads {
            chain = chain.reads(source, first).map_err(failed)?;
        }
        if let Some(source) = scaled_by {
            chain = chain.scales(source, first).map_err(failed)?;
        }
        if let Some(source) = adds {
            let residual = chain.links()[last].residual();
            chain = chain.edge(source, last, residual.unwrap_or(Residual::BeforeActivation)).map_err(failed)?;
        }
        problems.push((first, problem));
        tensors.push(last + 1);
    }
    let Some((_, Problem { input, dtype, .. })) = problems.first() else { return Err(refused("a chain has no steps")) };
    let shapes = chain.shapes(*input).map_err(failed)?;
    for (index, (first, problem)) in problems.iter().enumerate() {
        let given = shapes[chain.input_of(*first)];
        if (given, *dtype) != (problem.input, problem.dtype) {
            let words = format!("step {} is given {given} of {dtype}, but its line is `{problem}`", index + 1);
            return Err(refused(&words));
        }
    }
    Ok(chain)
}

/// A problem by its line.
pub fn problem(line: &JsValue) -> Result<Problem, JsValue> {
    string(line, "a problem")?.parse().map_err(failed)
}
