//! The charts of the page, drawn by the code of the command line's report.
//!
//! They are a module of their own, so that the package stays small.

#![cfg(target_arch = "wasm32")]

// The page draws one of the report's charts.
#[allow(dead_code)]
#[path = "../../../cli/src/report/chart.rs"]
mod chart;
#[allow(dead_code)]
#[path = "../../../cli/src/report/data.rs"]
mod data;
#[path = "../../../cli/src/figures.rs"]
mod figures;
#[path = "../../../cli/src/report/roofline.rs"]
mod roofline;

use gpuconv::planner::model::Rates;
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use data::{Ceilings, Run, Step};
use roofline::Measured;

/// What the package measured: a device's name, what `probe` gives, and what `measure` gives.
#[derive(Deserialize)]
struct Roofline {
    device: String,
    rates: Rates,
    steps: Vec<Run>,
}

/// The roofline of measured steps, as SVG, and its message in words. `measured` is JSON of `{ device, rates, steps }`.
#[wasm_bindgen]
pub fn roofline(measured: &str, width: u32) -> Result<Vec<String>, JsError> {
    let Roofline { device, rates, steps } = serde_json::from_str(measured)?;
    let ceilings = Ceilings::new(&rates);
    let layers: Vec<_> = steps.into_iter().map(|run| Step::new(run, &ceilings)).collect();
    let measured = Measured { device: &device, ceilings: &ceilings, layers: &layers };
    let svg = roofline::draw(measured, width, None).map_err(|error| JsError::new(&error.to_string()))?;
    Ok(vec![svg, roofline::takeaway(measured)])
}

/// The style sheet of charts.
#[wasm_bindgen]
pub fn style() -> String {
    chart::style()
}
