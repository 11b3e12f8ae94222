//! `separable`: depthwise and pointwise in one dispatch. The depthwise results of a tile go straight into the
//! workgroup memory from which the product reads them.
//!
//! Each tile of output channels computes its depthwise results anew, so wide tiles are better here than in a
//! plain product; whether the fusion pays the planner decides.

use std::fmt::Write as _;

use super::gemm::tiled::{self, TILES, Tile};
use super::gemm::{Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, fitting};
use crate::caps::Caps;
use crate::conv::Conv2d;
use crate::pack::{Order, Packing};
use crate::shader::{self, Shader};
use crate::shape::Layout;

pub const SEPARABLE: Kernel = Kernel { name: "separable", links: 2, candidates };

/// Wide in channels, so that the depthwise results are computed once.
const WIDE_TILES: &[Tile] = &[
    Tile { channels: 256, pixels: 32, depth: 8, micro_channels: 8, micro_pixels: 4 },
    Tile { channels: 128, pixels: 32, depth: 16, micro_channels: 4, micro_pixels: 4 },
];

/// Beyond this the taps of a quad no longer fit into registers beside the sums.
const MOST_TAPS: u64 = 49;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [depthwise, pointwise] = run.links else {
        return Err(Unsupported::Links(run.links.len()));
    };
    if !depthwise.is_depthwise() || depthwise.out_channels != depthwise.in_channels || !pointwise.is_pointwise() {
        return Err(Unsupported::NotSeparable);
    }
    if depthwise.residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    if depthwise.fan_in() > MOST_TAPS {
        return Err(Unsupported::KernelSize(depthwise.kernel_size));
    }
    let source = source(run, depthwise)?;
    let recipes = WIDE_TILES.iter().chain(TILES).map(|&tile| tiled::recipe(run, &source, tile, caps)).collect();
    fitting(run, caps, recipes)
}

fn source(run: &Run<'_>, depthwise: &Conv2d) -> Result<Source, Unsupported> {
    let taps = depthwise.fan_in();
    let mut shader = Shader::new(match run.layout {
        Layout::Nhwc if !depthwise.in_channels.is_multiple_of(4) => return Err(Unsupported::Layout(run.layout)),
        Layout::Nhwc => include_str!("../../shaders/source_depthwise_nhwc.wgsl"),
        Layout::Nchw if run.output().width.is_multiple_of(4) => {
            include_str!("../../shaders/source_depthwise_rows.wgsl")
        }
        Layout::Nchw => include_str!("../../shaders/source_depthwise_nchw.wgsl"),
    });
    let mut loads = taps as f64;
    let packing = match run.layout {
        Layout::Nhwc => Packing::Taps,
        Layout::Nchw => Packing::Panels { block: 1, k_align: 4, order: Order::ChannelFirst },
    };
    if run.layout == Layout::Nchw && run.output().width.is_multiple_of(4) {
        let (text, columns) = fetch_row(depthwise);
        shader = shader.add(&text);
        loads = f64::from(depthwise.kernel_size[0]) * columns as f64 / 4.0;
    }
    Ok(Source {
        kernel: SEPARABLE.name,
        wgsl: shader
            .add(&shader::activation("activate_depthwise", depthwise.activation))
            .constants(&shader::geometry(depthwise))
            .constants(&[("TAP_QUADS", taps.div_ceil(4))])
            .text(),
        fetch: Fetch::Quads { aligned: run.layout == Layout::Nhwc },
        order: Order::ChannelFirst,
        link: 1,
        before: vec![(0, packing, "DEPTHWISE_AT"), (0, Packing::Bias { block: 1 }, "DEPTHWISE_BIAS_AT")],
        // The taps' weights are shared by the four outputs of a quad.
        loads: loads + taps as f64 / 4.0,
        mult_adds: taps as f64,
    })
}

/// `fetch` of four neighbouring outputs of a row, written out, and how many inputs of a row they read.
fn fetch_row(depthwise: &Conv2d) -> (String, usize) {
    let [kernel_height, kernel_width] = depthwise.kernel_size;
    let column_of = |output: u32, kx: u32| output * depthwise.stride[1] + kx * depthwise.dilation[1];
    let columns: std::collections::BTreeSet<_> =
        (0..4).flat_map(|output| (0..kernel_width).map(move |kx| column_of(output, kx))).collect();
    let mut text = String::from(
        "fn fetch(k: u32, place: Place) -> vec4<f32> {\n\
         \x20   if PADDED_DEPTH != DEPTH && k >= DEPTH { return vec4<f32>(0.0); }\n\
         \x20   let plane = place.image + k * in_pixels();\n\
         \x20   var sum = vec4<f32>(weights[DEPTHWISE_BIAS_AT + k / 4u][k % 4u]);\n",
    );
    for quad in 0..depthwise.fan_in().div_ceil(4) {
        let _ = writeln!(text, "    let w{quad} = weights[DEPTHWISE_AT + k * TAP_QUADS + {quad}u];");
    }
    for ky in 0..kernel_height {
        let _ = writeln!(text, "    let y{ky} = place.top + {};", ky * depthwise.dilation[0]);
        let _ = writeln!(text, "    let inside{ky} = inside(y{ky}, params.in_height);");
        let _ = writeln!(text, "    let row{ky} = plane + u32(y{ky}) * params.in_width;");
        for column in &columns {
            let _ = writeln!(text, "    let v{ky}_{column} = load_padded(row{ky}, inside{ky}, place.left + {column});");
        }
        for kx in 0..kernel_width {
            let values: Vec<_> = (0..4).map(|output| format!("v{ky}_{}", column_of(output, kx))).collect();
            let tap = ky * kernel_width + kx;
            let weight = format!("w{}.{}", tap / 4, ["x", "y", "z", "w"][tap as usize % 4]);
            let _ = writeln!(text, "    sum = fma(vec4<f32>({}), vec4<f32>({weight}), sum);", values.join(", "));
        }
    }
    text.push_str("    return activate_depthwise4(sum);\n}\n");
    (text, columns.len())
}
