//! `cost`: parameters, multiply-adds and bytes of a problem, counted as torchinfo counts them. It needs no device.

use clap::Args;
use gpuconv::cost::{self, ChainCost};
use gpuconv::{Chain, Link, Operation, PoolMode, Problem};
use serde::Serialize;

use super::{Case, Outcome, print, print_json, table};

#[derive(Args)]
pub struct Cost {
    /// Write an object
    #[arg(long)]
    json: bool,
    /// The problem to count
    problem: String,
}

#[derive(Serialize)]
struct Counted {
    problem: String,
    links: Vec<Counts>,
    params: u64,
    mult_adds: u64,
    bytes_unfused: u64,
    bytes_fused: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    standard: Option<Standard>,
}

#[derive(Serialize)]
struct Counts {
    op: &'static str,
    output: [u32; 4],
    params: u64,
    mult_adds: u64,
    bytes: u64,
}

/// The standard convolution that a separable one replaces, and the separable one's cost relative to it.
#[derive(Serialize)]
struct Standard {
    params: u64,
    mult_adds: u64,
    params_ratio: f64,
    mult_adds_ratio: f64,
}

impl Cost {
    pub fn execute(&self) -> Outcome {
        let case = Case::parse(&self.problem)?;
        let cost = cost::chain(&case.problem.chain(), case.problem.input)?;
        let standard = match &case.problem.operation {
            Operation::Separable(separable) => {
                Some(cost::chain(&Chain::from(separable.standard()), case.problem.input)?)
            }
            _ => None,
        };
        if self.json {
            print_json(&Counted::new(case, &cost, standard.as_ref()))
        } else {
            print(&text(&case, &cost, standard.as_ref()))
        }
    }
}

/// The operation of each link.
fn ops(problem: &Problem) -> Vec<&'static str> {
    match &problem.operation {
        Operation::Conv(_) => vec!["conv"],
        Operation::Depthwise(_) => vec!["depthwise"],
        Operation::Pointwise(_) => vec!["pointwise"],
        Operation::Separable(_) => vec!["depthwise", "pointwise"],
        _ => problem.chain().links().iter().map(op).collect(),
    }
}

fn op(link: &Link) -> &'static str {
    match link {
        Link::GlobalAveragePool => "pool",
        Link::Pool(pool) if pool.mode == PoolMode::Max => "maxpool",
        Link::Pool(_) => "avgpool",
        Link::SqueezeExcite(_) => "gate",
        Link::ConvTranspose(_) => "transposed",
        Link::PRelu(_) => "prelu",
        Link::Resize(_) => "resize",
        Link::PixelShuffle { .. } => "pixelshuffle",
        Link::PixelUnshuffle { .. } => "pixelunshuffle",
        Link::Slice { .. } => "slice",
        Link::Concat(_) => "concat",
        Link::Conv(conv) if conv.is_pointwise() => "pointwise",
        Link::Conv(conv) if conv.is_depthwise() => "depthwise",
        Link::Conv(_) => "conv",
        _ => "other",
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

impl Counted {
    fn new(case: Case, cost: &ChainCost, standard: Option<&ChainCost>) -> Self {
        let links = ops(&case.problem).into_iter().zip(&cost.links).map(|(op, link)| Counts {
            op,
            output: link.output.into(),
            params: link.params,
            mult_adds: link.mult_adds,
            bytes: link.bytes,
        });
        Self {
            links: links.collect(),
            problem: case.text,
            params: cost.params,
            mult_adds: cost.mult_adds,
            bytes_unfused: cost.bytes_unfused,
            bytes_fused: cost.bytes_fused,
            standard: standard.map(|standard| Standard {
                params: standard.params,
                mult_adds: standard.mult_adds,
                params_ratio: ratio(cost.params, standard.params),
                mult_adds_ratio: ratio(cost.mult_adds, standard.mult_adds),
            }),
        }
    }
}

fn text(case: &Case, cost: &ChainCost, standard: Option<&ChainCost>) -> String {
    let mut table = table::new(["", "output", "parameters", "mult-adds", "bytes", "flop/byte"], 1);
    let mut row = |name: &str, output: String, [params, mult_adds, bytes]: [u64; 3], intensity: f64| {
        let counts = [params, mult_adds, bytes].map(table::count);
        let cells = [name.into(), output].into_iter().chain(counts).chain([table::figure(intensity)]);
        table.add_row(cells.collect::<Vec<_>>());
    };
    for (op, link) in ops(&case.problem).into_iter().zip(&cost.links) {
        row(op, link.output.to_string(), [link.params, link.mult_adds, link.bytes], link.intensity());
    }
    let output = cost.links.last().map(|link| link.output.to_string()).unwrap_or_default();
    if cost.links.len() > 1 {
        let sum = |bytes| [cost.params, cost.mult_adds, bytes];
        row("total, unfused", output.clone(), sum(cost.bytes_unfused), cost.intensity_unfused());
        row("total, fused", output.clone(), sum(cost.bytes_fused), cost.intensity_fused());
    }
    let mut ratios = String::new();
    if let Some(standard) = standard {
        let counts = [standard.params, standard.mult_adds, standard.bytes_unfused];
        row("standard convolution", output, counts, standard.intensity_unfused());
        ratios = format!(
            "separable / standard: {:.4} of the parameters, {:.4} of the mult-adds\n",
            ratio(cost.params, standard.params),
            ratio(cost.mult_adds, standard.mult_adds),
        );
    }
    format!("{}\n{table}\n{ratios}", case.text)
}
