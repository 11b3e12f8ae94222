//! `separable`: depthwise and pointwise in one dispatch. The depthwise results of a tile go straight into the
//! workgroup memory from which the product reads them.
//!
//! Each tile of output channels computes its depthwise results anew, so wide tiles are better here than in a
//! plain product; whether the fusion pays the planner decides.

use std::fmt::Write as _;

use super::gemm::tiled::{self, TILES_OF_GATHERED};
use super::gemm::window::{self, Lines, MOST_ROWS, MOST_TAPS};
use super::gemm::{Fetch, Source};
use super::{Kernel, Recipe, Run, Unsupported, Wgsl, fitting};
use crate::kernels::pack::{Order, Packing};
use crate::kernels::shader::{self, COMPONENTS, Shader};
use crate::model::caps::Caps;
use crate::model::conv::Conv2d;
use crate::model::shape::Layout;

pub const SEPARABLE: Kernel = Kernel { name: "separable", links: 2, candidates };

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let [depthwise, pointwise] = run.convs()?;
    if !depthwise.is_depthwise() || depthwise.out_channels != depthwise.in_channels || !pointwise.is_pointwise() {
        return Err(Unsupported::NotSeparable);
    }
    if depthwise.residual.is_some() {
        return Err(Unsupported::InnerResidual);
    }
    if depthwise.fan_in() > MOST_TAPS {
        return Err(Unsupported::KernelSize(depthwise.kernel_size));
    }
    let source = source(run, [depthwise, pointwise])?;
    let recipes = TILES_OF_GATHERED.iter().map(|&tile| tiled::recipe(run, &source, tile, caps)).collect();
    fitting(run, caps, recipes)
}

fn source(run: &Run<'_>, [depthwise, pointwise]: [&Conv2d; 2]) -> Result<Source, Unsupported> {
    let taps = depthwise.fan_in();
    let outputs = match run.layout {
        Layout::Nhwc if !depthwise.in_channels.is_multiple_of(4) => {
            return Err(Unsupported::InChannels(depthwise.in_channels));
        }
        Layout::Nhwc => Outputs::Channels,
        Layout::Nchw if u64::from(padded_width(run)) * 4 <= u64::from(run.output().width) * 5 => Outputs::Neighbours,
        Layout::Nchw => Outputs::Pixels,
    };
    // A tap's weight is shared by four outputs, unless these are channels.
    let weights = taps as f64 / if outputs == Outputs::Channels { 1.0 } else { 4.0 };
    let window = Window::new(depthwise, outputs, padded_width(run) - run.output().width);
    let (loads, registers) = match outputs {
        // A quad of inputs and its places.
        Outputs::Pixels => (taps as f64, 12),
        _ => (window.loads(), window.registers()),
    };
    let packing = match run.layout {
        Layout::Nhwc => Packing::Taps,
        Layout::Nchw => Packing::Panels { block: 1, k_align: 4, order: Order::ChannelFirst },
    };
    Ok(Source {
        kernel: SEPARABLE.name,
        wgsl: Wgsl::new(move || window.wgsl()),
        template: None,
        fetch: match outputs {
            Outputs::Neighbours => Fetch::Lines,
            _ => Fetch::Quads { aligned: outputs == Outputs::Channels },
        },
        order: Order::ChannelFirst,
        conv: pointwise.clone(),
        link: 1,
        before: vec![
            (run.section(0, depthwise, packing), "DEPTHWISE_AT"),
            (run.section(0, depthwise, Packing::Bias { block: 1 }), "DEPTHWISE_BIAS_AT"),
        ],
        loads: loads + weights,
        mult_adds: taps as f64,
        shared: 0.0,
        registers,
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

/// The inputs under the kernel for four outputs.
struct Window {
    depthwise: Conv2d,
    outputs: Outputs,
    rows: Lines,
    columns: Lines,
}

impl Window {
    /// `filled`: outputs behind the last of a row.
    fn new(depthwise: &Conv2d, outputs: Outputs, filled: u32) -> Self {
        let columns = match outputs {
            Outputs::Neighbours => Lines::columns(depthwise, 4, filled),
            Outputs::Channels | Outputs::Pixels => Lines::columns(depthwise, 1, 0),
        };
        Self { depthwise: depthwise.clone(), outputs, rows: Lines::rows(depthwise), columns }
    }

    /// All that the source is made of.
    fn wgsl(&self) -> String {
        let Self { depthwise, outputs, .. } = self;
        let shader = match outputs {
            Outputs::Channels => Shader::new(include_str!("../../shaders/corner_nhwc.wgsl")),
            Outputs::Neighbours => Shader::new(include_str!("../../shaders/corner_nchw.wgsl")),
            Outputs::Pixels => Shader::new(include_str!("../../shaders/source_depthwise_nchw.wgsl")),
        };
        let shader = match outputs {
            Outputs::Pixels => shader.add(shader::window(Layout::Nchw)),
            _ => shader.add(include_str!("../../shaders/lines.wgsl")).add(&self.place()).add(&self.fetch()),
        };
        shader
            .add(&match outputs {
                // Steps are filled up with whole quads, so that channels which share NaNs are all real.
                Outputs::Channels => shader::pixel_activation("activate_depthwise", depthwise.activation, 1, true),
                _ => shader::inner_activation("activate_depthwise", depthwise.activation),
            })
            .add(if *outputs == Outputs::Channels { shader::CLAMP_BITS } else { "" })
            .constants(&shader::geometry(depthwise))
            .constants(&[("PIXELS", 4), ("TAP_QUADS", depthwise.fan_in().div_ceil(4))])
            .text()
    }

    /// Loads of the input for each output.
    fn loads(&self) -> f64 {
        let loads = (self.rows.all.len() * self.columns.all.len()) as f64;
        if self.outputs == Outputs::Neighbours { loads / 4.0 } else { loads }
    }

    /// For the inputs and the weights of a row, and four sums.
    fn registers(&self) -> u32 {
        let lanes = if self.outputs == Outputs::Channels { 4 } else { 1 };
        (self.columns.all.len() as u32 + self.depthwise.kernel_size[1]) * lanes + 4
    }

    /// Whether the rows are a loop, and not written out.
    fn loops(&self) -> bool {
        self.depthwise.kernel_size[0] > MOST_ROWS
    }

    /// `Place` and `place`.
    fn place(&self) -> String {
        let rows = self.rows.all.iter().filter(|_| !self.loops());
        let rows = rows.map(|row| (format!("row{row}"), format!("row(corner, {row})")));
        let columns = self.columns.padded.iter();
        let columns = columns.map(|column| (format!("column{column}"), format!("column(corner, {column})")));
        window::place(&rows.chain(columns).collect::<Vec<_>>())
    }

    /// `fetch`.
    fn fetch(&self) -> String {
        let taps = self.depthwise.fan_in();
        let channels = self.outputs == Outputs::Channels;
        let mut text = String::from(
            "fn fetch(k: u32, place: Place) -> vec4<f32> {\n\
             \x20   if DEPTH_IS_PADDED && k >= params.group_in { return vec4<f32>(0.0); }\n",
        );
        text.push_str(match channels {
            true => {
                "    let plane = place.corner.image + k / 4u;\n\
                 \x20   var sum = weights[DEPTHWISE_BIAS_AT + k / 4u];\n"
            }
            false => {
                "    let plane = place.corner.image + k * in_pixels();\n\
                 \x20   var sum = vec4<f32>(weights[DEPTHWISE_BIAS_AT + k / 4u][k % 4u]);\n"
            }
        });
        if !channels && !self.loops() {
            for quad in 0..taps.div_ceil(4) {
                let _ = writeln!(text, "    let w{quad} = weights[DEPTHWISE_AT + k * TAP_QUADS + {quad}u];");
            }
        }
        if self.loops() {
            text.push_str(
                "    for (var ky = 0u; ky < opaque(KERNEL_HEIGHT); ky++) {\n\
                 \x20       let row = row(place.corner, i32(ky * DILATION_Y));\n",
            );
            self.add_row(&mut text, None, !self.rows.padded.is_empty());
            text.push_str("    }\n");
        } else {
            for (ky, row) in (0..).zip(&self.rows.all) {
                let _ = writeln!(text, "    {{\n        let row = place.row{row};");
                self.add_row(&mut text, Some(ky), self.rows.padded.contains(row));
                text.push_str("    }\n");
            }
        }
        text.push_str(match channels {
            true => "    activate_depthwise_pixel(&sum);\n    return sum;\n}\n",
            false => "    return activate_depthwise4(sum);\n}\n",
        });
        text
    }

    /// Adds the products of a row of the kernel, whose input is `row`: of number `ky`, or in the loop over all of them.
    fn add_row(&self, text: &mut String, ky: Option<u32>, is_padded: bool) {
        text.push_str("        let at = plane + row.at;\n");
        for column in &self.columns.all {
            let _ = writeln!(text, "        let v{column} = {};", self.load(*column, is_padded));
        }
        for kx in 0..self.depthwise.kernel_size[1] {
            let [value, weight] = self.tap(ky, kx);
            let _ = writeln!(text, "        sum = fma({value}, {weight}, sum);");
        }
    }

    /// An input, zero in the padding.
    fn load(&self, column: u32, row_is_padded: bool) -> String {
        let column_is_padded = self.columns.padded.contains(&column);
        let offset = match column_is_padded {
            true => format!("place.column{column}.at"),
            false => format!("{}u * column_stride()", column - self.depthwise.padding[1]),
        };
        let value = format!("input[at + {offset}]");
        let zero = if self.outputs == Outputs::Channels { "vec4<f32>(0.0)" } else { "0.0" };
        match (row_is_padded, column_is_padded) {
            (false, false) => value,
            (true, false) => format!("select({zero}, {value}, row.inside)"),
            (false, true) => format!("select({zero}, {value}, place.column{column}.inside)"),
            // `&` and not `&&`, which is a branch.
            (true, true) => format!("select({zero}, {value}, row.inside & place.column{column}.inside)"),
        }
    }

    /// What a tap multiplies.
    fn tap(&self, ky: Option<u32>, kx: u32) -> [String; 2] {
        let column = |output: u32| output * self.depthwise.stride[1] + kx * self.depthwise.dilation[1];
        let tap = ky.map(|ky| ky * self.depthwise.kernel_size[1] + kx);
        let number = tap.map_or_else(|| format!("(ky * KERNEL_WIDTH + {kx}u)"), |tap| format!("{tap}u"));
        if self.outputs == Outputs::Channels {
            let weight = format!("weights[DEPTHWISE_AT + {number} * column_stride() + k / 4u]");
            return [format!("v{}", column(0)), weight];
        }
        let weight = match tap {
            Some(tap) => format!("w{}.{}", tap / 4, COMPONENTS[tap as usize % 4]),
            None => format!("weights[DEPTHWISE_AT + k * TAP_QUADS + {number} / 4u][{number} % 4u]"),
        };
        let values: Vec<_> = (0..4).map(|output| format!("v{}", column(output))).collect();
        [format!("vec4<f32>({})", values.join(", ")), format!("vec4<f32>({weight})")]
    }
}
