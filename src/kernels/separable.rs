//! `separable`: depthwise and pointwise in one dispatch. The depthwise results of a tile go straight into the
//! workgroup memory from which the product reads them.
//!
//! Each tile of output channels computes its depthwise results anew, so wide tiles are better here than in a
//! plain product; whether the fusion pays the planner decides.

use std::collections::BTreeSet;
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
    Tile { channels: 256, pixels: 32, depth: 8, micro_channels: 8, micro_pixels: 8 },
    Tile { channels: 128, pixels: 32, depth: 16, micro_channels: 8, micro_pixels: 4 },
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
    let outputs = match run.layout {
        Layout::Nhwc if !depthwise.in_channels.is_multiple_of(4) => return Err(Unsupported::Layout(run.layout)),
        Layout::Nhwc => Outputs::Channels,
        Layout::Nchw if u64::from(padded_width(run)) * 4 <= u64::from(run.output().width) * 5 => Outputs::Neighbours,
        Layout::Nchw => Outputs::Pixels,
    };
    let shader = Shader::new(match outputs {
        Outputs::Channels => include_str!("../../shaders/source_depthwise_nhwc.wgsl"),
        Outputs::Neighbours => include_str!("../../shaders/source_depthwise_rows.wgsl"),
        Outputs::Pixels => include_str!("../../shaders/source_depthwise_nchw.wgsl"),
    });
    let (shader, loads) = match outputs {
        Outputs::Pixels => (shader.add(shader::window(run.layout)), taps as f64),
        _ => {
            let window = Window::new(depthwise, outputs, padded_width(run) - run.output().width);
            let shader = shader.add(include_str!("../../shaders/source_depthwise_lines.wgsl"));
            (shader.add(&window.place()).add(&window.fetch()), window.loads())
        }
    };
    let packing = match run.layout {
        Layout::Nhwc => Packing::Taps,
        Layout::Nchw => Packing::Panels { block: 1, k_align: 4, order: Order::ChannelFirst },
    };
    Ok(Source {
        kernel: SEPARABLE.name,
        wgsl: shader
            .add(&shader::inner_activation("activate_depthwise", depthwise.activation))
            .constants(&shader::geometry(depthwise))
            .constants(&[("TAP_QUADS", taps.div_ceil(4))])
            .text(),
        fetch: match outputs {
            Outputs::Neighbours => Fetch::Lines,
            _ => Fetch::Quads { aligned: outputs == Outputs::Channels },
        },
        order: Order::ChannelFirst,
        link: 1,
        before: vec![(0, packing, "DEPTHWISE_AT"), (0, Packing::Bias { block: 1 }, "DEPTHWISE_BIAS_AT")],
        // The taps' weights are shared by the four outputs of a quad.
        loads: loads + taps as f64 / 4.0,
        mult_adds: taps as f64,
    })
}

/// The output's width, filled up to whole quads.
fn padded_width(run: &Run<'_>) -> u32 {
    run.output().width.next_multiple_of(4)
}

/// Which four outputs of the depthwise convolution are made at a time.
#[derive(Clone, Copy, PartialEq)]
enum Outputs {
    /// Four channels of a pixel.
    Channels,
    /// Four neighbours in a row, of which the last of a row may be none.
    Neighbours,
    /// Any four pixels: for rows so short that filling them up would add more than a quarter.
    Pixels,
}

/// The inputs under the kernel for four outputs. Rows and columns are found once; of those that can never lie in the
/// padding none is checked, and their addresses differ by constants.
struct Window<'a> {
    depthwise: &'a Conv2d,
    outputs: Outputs,
    /// From the corner.
    rows: BTreeSet<u32>,
    columns: BTreeSet<u32>,
    /// Those that can lie in the padding.
    padded_rows: BTreeSet<u32>,
    padded_columns: BTreeSet<u32>,
}

impl<'a> Window<'a> {
    /// `filled`: outputs behind the last of a row.
    fn new(depthwise: &'a Conv2d, outputs: Outputs, filled: u32) -> Self {
        let [kernel_height, kernel_width] = depthwise.kernel_size;
        let [pad_top, pad_left, pad_bottom, pad_right] = depthwise.padding;
        let neighbours = if outputs == Outputs::Neighbours { 4 } else { 1 };
        let columns = (0..neighbours).flat_map(|output| {
            (0..kernel_width).map(move |kx| output * depthwise.stride[1] + kx * depthwise.dilation[1])
        });
        let columns: BTreeSet<_> = columns.collect();
        let rows: BTreeSet<_> = (0..kernel_height).map(|ky| ky * depthwise.dilation[0]).collect();
        // Only the first taps reach into the padding before the image, and only the last ones into that behind.
        let padded = |lines: &BTreeSet<u32>, before: u32, behind: u32| {
            let last = lines.last().copied().unwrap_or(0);
            lines.iter().copied().filter(|line| *line < before || last - line < behind).collect()
        };
        let padded_rows = padded(&rows, pad_top, pad_bottom);
        let filled = if outputs == Outputs::Neighbours { filled * depthwise.stride[1] } else { 0 };
        let padded_columns = padded(&columns, pad_left, pad_right + filled);
        Self { depthwise, outputs, rows, columns, padded_rows, padded_columns }
    }

    /// Loads of the input for each output.
    fn loads(&self) -> f64 {
        let loads = (self.rows.len() * self.columns.len()) as f64;
        if self.outputs == Outputs::Neighbours { loads / 4.0 } else { loads }
    }

    /// `Place` and `place`.
    fn place(&self) -> String {
        let mut text = String::from("struct Place {\n    image: u32,\n");
        let columns = self.padded_columns.iter().map(|column| format!("column{column}"));
        for line in self.rows.iter().map(|row| format!("row{row}")).chain(columns) {
            let _ = writeln!(text, "    {line}: Line,");
        }
        text.push_str("}\nfn place(pixel: u32, group: u32) -> Place {\n    let corner = corner(pixel);\n");
        text.push_str("    return Place(\n        corner.image,\n");
        for row in &self.rows {
            let _ = writeln!(text, "        row(corner, {row}),");
        }
        for column in &self.padded_columns {
            let _ = writeln!(text, "        column(corner, {column}),");
        }
        text.push_str("    );\n}\n");
        text
    }

    /// `fetch`, with the taps written out.
    fn fetch(&self) -> String {
        let taps = self.depthwise.fan_in();
        let channels = self.outputs == Outputs::Channels;
        let mut text = String::from(
            "fn fetch(k: u32, place: Place) -> vec4<f32> {\n\
             \x20   if DEPTH_IS_PADDED && k >= params.group_in { return vec4<f32>(0.0); }\n",
        );
        text.push_str(match channels {
            true => {
                "    let plane = place.image + k / 4u;\n\
                 \x20   var sum = weights[DEPTHWISE_BIAS_AT + k / 4u];\n"
            }
            false => {
                "    let plane = place.image + k * in_pixels();\n\
                 \x20   var sum = vec4<f32>(weights[DEPTHWISE_BIAS_AT + k / 4u][k % 4u]);\n"
            }
        });
        if !channels {
            for quad in 0..taps.div_ceil(4) {
                let _ = writeln!(text, "    let w{quad} = weights[DEPTHWISE_AT + k * TAP_QUADS + {quad}u];");
            }
        }
        for (ky, row) in self.rows.iter().enumerate() {
            let _ = writeln!(text, "    let at{row} = plane + place.row{row}.at;");
            for column in &self.columns {
                let _ = writeln!(text, "    let v{row}_{column} = {};", self.load(*row, *column));
            }
            for kx in 0..self.depthwise.kernel_size[1] {
                let tap = ky as u32 * self.depthwise.kernel_size[1] + kx;
                let [value, weight] = self.tap(*row, kx, tap);
                let _ = writeln!(text, "    sum = fma({value}, {weight}, sum);");
            }
        }
        text.push_str("    return activate_depthwise4(sum);\n}\n");
        text
    }

    /// An input, zero in the padding.
    fn load(&self, row: u32, column: u32) -> String {
        let offset = match self.padded_columns.contains(&column) {
            true => format!("place.column{column}.at"),
            false => format!("{}u * column_stride()", column - self.depthwise.padding[1]),
        };
        let value = format!("input[at{row} + {offset}]");
        let mut inside = Vec::new();
        if self.padded_rows.contains(&row) {
            inside.push(format!("place.row{row}.inside"));
        }
        if self.padded_columns.contains(&column) {
            inside.push(format!("place.column{column}.inside"));
        }
        let zero = if self.outputs == Outputs::Channels { "vec4<f32>(0.0)" } else { "0.0" };
        match inside.is_empty() {
            true => value,
            // `&` and not `&&`, which is a branch.
            false => format!("select({zero}, {value}, {})", inside.join(" & ")),
        }
    }

    /// What a tap multiplies.
    fn tap(&self, row: u32, kx: u32, tap: u32) -> [String; 2] {
        let column = |output: u32| output * self.depthwise.stride[1] + kx * self.depthwise.dilation[1];
        if self.outputs == Outputs::Channels {
            let weight = format!("weights[DEPTHWISE_AT + {tap}u * column_stride() + k / 4u]");
            return [format!("v{row}_{}", column(0)), weight];
        }
        let values: Vec<_> = (0..4).map(|output| format!("v{row}_{}", column(output))).collect();
        let component = ["x", "y", "z", "w"][tap as usize % 4];
        [format!("vec4<f32>({})", values.join(", ")), format!("vec4<f32>(w{}.{component})", tap / 4)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_not_checked_lie_in_the_image() {
        let mut seen = 0;
        let sizes = (1..=20).flat_map(|width| (1..=5).flat_map(move |kernel| (1..=3).map(move |s| (width, kernel, s))));
        for (width, kernel, stride) in sizes {
            for (dilation, left, right) in [(1, 0, 0), (1, 1, 1), (2, 0, 3), (1, 4, 1), (2, 3, 2)] {
                let conv = Conv2d::depthwise(1).kernel_size([1, kernel]).stride([1, stride]).dilation([1, dilation]);
                let conv = conv.padding([0, left, 0, right]);
                let Ok(output) = conv.output_shape([1, 1, 1, width].into()) else { continue };
                let padded = output.width.next_multiple_of(4);
                let window = Window::new(&conv, Outputs::Neighbours, padded - output.width);
                for column in window.columns.difference(&window.padded_columns) {
                    for first in (0..padded).step_by(4) {
                        let x = i64::from(first * stride + column) - i64::from(left);
                        assert!((0..i64::from(width)).contains(&x), "{conv:?} on {width}: column {column} of {first}");
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 1000, "{seen} columns were seen");
    }
}
