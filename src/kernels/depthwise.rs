//! `depthwise`: a register tile of outputs an invocation, each input under it loaded once.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Kernel, Params, Pass, Recipe, Run, Unsupported, Work, compulsory_bytes, fitting, single_pass_operands};
use crate::caps::Caps;
use crate::conv::Conv2d;
use crate::pack::{Order, Packing, sections};
use crate::shader::{self, Shader};
use crate::shape::Layout;

pub const DEPTHWISE: Kernel = Kernel { name: "depthwise", links: 1, candidates };

/// Tiles, rows x columns. GPUs like small ones, which leave registers for many invocations; a software
/// device, for which every load is dear, likes them as large as the image.
const TILES: &[[u32; 2]] = &[[4, 4], [2, 4], [1, 4], [1, 1], [7, 7]];
const WORKGROUP: u32 = 64;
/// Beyond this many values at once (sums, weights, one row of inputs) no GPU keeps a tile in registers.
const MOST_REGISTERS: u64 = 128;
/// Beyond this many multiply-adds a written-out tile takes drivers too long to compile.
const MOST_TERMS: u64 = 2500;

fn candidates(run: &Run<'_>, caps: &Caps) -> Result<Vec<Recipe>, Unsupported> {
    let link = run.only()?;
    if !link.is_depthwise() {
        return Err(Unsupported::Groups(link.groups));
    }
    let mut recipes = Vec::new();
    let mut fewest = u64::MAX;
    for &tile in TILES {
        let registers = registers(link, tile);
        let terms = u64::from(tile[0] * tile[1]) * link.fan_in();
        fewest = fewest.min(registers);
        if registers <= MOST_REGISTERS && terms <= MOST_TERMS {
            recipes.push(recipe(run, tile, 1));
            if run.layout == Layout::Nhwc && link.in_channels % 4 == 0 && link.out_channels == link.in_channels {
                // Four channels at once take four times the registers.
                if registers * 4 <= MOST_REGISTERS {
                    recipes.insert(0, recipe(run, tile, 4));
                }
            }
        }
    }
    if recipes.is_empty() {
        return Err(Unsupported::Registers(fewest));
    }
    fitting(run, caps, recipes)
}

/// Values that a tile holds at once.
fn registers(link: &Conv2d, [height, width]: [u32; 2]) -> u64 {
    let columns = taps_along(width, link.stride[1], link.kernel_size[1], link.dilation[1]).len() as u64;
    u64::from(height) * u64::from(width) + link.fan_in() + columns
}

fn recipe(run: &Run<'_>, tile: [u32; 2], lanes: u32) -> Recipe {
    let link = run.last();
    let taps = match run.layout {
        Layout::Nchw => Packing::Panels { block: 1, k_align: 1, order: Order::ChannelFirst },
        Layout::Nhwc => Packing::Taps,
    };
    let (weights, offsets) = sections(run.links, &[(0, taps), (0, Packing::Bias { block: 1 })]);

    let output = run.output();
    let tiles = [output.height.div_ceil(tile[0]), output.width.div_ceil(tile[1])];
    let channels = link.out_channels / lanes;
    let items = u64::from(tiles[0]) * u64::from(tiles[1]) * u64::from(channels) * u64::from(output.batch);

    let (value, store_value) = match lanes {
        1 => ("f32", "store(at, sum);"),
        _ => ("vec4<f32>", "store4(vec4<u32>(at * 4u), vec4<bool>(true), sum);"),
    };
    let output_file = if lanes == 1 { shader::OUTPUT_SCALAR } else { shader::OUTPUT_VEC4 };
    let mut constants = shader::geometry(link);
    // Strides and offsets count `Value`s.
    constants.extend([
        ("IN_CHANNELS", u64::from(link.in_channels / lanes)),
        ("OUT_CHANNELS", channels.into()),
        ("CHANNELS", channels.into()),
        ("MULTIPLIER", (link.out_channels / link.in_channels).into()),
        ("BIAS_AT", offsets[1] / u64::from(lanes)),
        ("TILE_HEIGHT", tile[0].into()),
        ("TILE_WIDTH", tile[1].into()),
        ("WORKGROUP", WORKGROUP.into()),
    ]);
    let wgsl = Shader::new(include_str!("../../shaders/depthwise.wgsl"))
        .add(shader::strides(run.layout))
        .add(output_file)
        .add(&format!("alias Value = {value};\nfn store_value(at: u32, sum: Value) {{ {store_value} }}\n"))
        .add(&compute_tile(link, tile, run.layout))
        .constants(&constants)
        .finish(run);

    let loads = taps_along(tile[0], link.stride[0], link.kernel_size[0], link.dilation[0]).len()
        * taps_along(tile[1], link.stride[1], link.kernel_size[1], link.dilation[1]).len();
    let outputs = f64::from(tile[0] * tile[1]);
    let values = items as f64 * f64::from(lanes);
    let [height, width] = tile;
    Recipe {
        name: format!("depthwise/{height}x{width}{}", if lanes == 4 { "x4" } else { "" }),
        passes: vec![Pass {
            wgsl,
            operands: single_pass_operands(run),
            params: Params { tiles_x: tiles[1], tiles_y: tiles[0], work: items as u32, ..Params::of(run) },
            workgroup: WORKGROUP,
            workgroups: items.div_ceil(WORKGROUP.into()),
            workgroup_memory: 0,
        }],
        weights,
        workspace: Vec::new(),
        work: Work {
            mult_adds: values * outputs * link.fan_in() as f64,
            accesses: values * (loads as f64 + outputs + link.fan_in() as f64 + 1.0),
            shared: 0.0,
            bytes: compulsory_bytes(run),
            invocations: items as f64,
        },
        // A few dozen terms in order.
        tolerance: 4.0,
        exact: true,
    }
}

/// The input rows (or columns) under a tile, relative to its first.
fn taps_along(tile: u32, stride: u32, kernel: u32, dilation: u32) -> BTreeSet<u32> {
    (0..tile).flat_map(|output| (0..kernel).map(move |tap| output * stride + tap * dilation)).collect()
}

/// `compute_tile`, written out: for each input row under the tile its loads, then all multiply-adds that need
/// it, row after row, so that one row of inputs is live at a time.
fn compute_tile(link: &Conv2d, [height, width]: [u32; 2], layout: Layout) -> String {
    let [kernel_height, kernel_width] = link.kernel_size;
    let taps = kernel_height * kernel_width;
    let mut text = String::from("fn compute_tile(tile: Tile) {\n");
    for tap in 0..taps {
        let at = match layout {
            Layout::Nchw => format!("tile.channel * {taps}u + {tap}u"),
            Layout::Nhwc => format!("{tap}u * CHANNELS + tile.channel"),
        };
        let _ = writeln!(text, "    let w{tap} = weights[{at}];");
    }
    let columns = taps_along(width, link.stride[1], kernel_width, link.dilation[1]);
    let _ = writeln!(text, "    let last_row = i32(params.in_height) - 1;\n    let last_column = i32(params.in_width) - 1;");
    for column in &columns {
        let _ = writeln!(text, "    let x{column} = tile.left + {column};");
        let _ = writeln!(text, "    let at{column} = u32(clamp(x{column}, 0, last_column)) * IN_PIXEL_STRIDE;");
        let _ = writeln!(text, "    let in{column} = inside(x{column}, params.in_width);");
    }
    let _ = writeln!(text, "    let bias = weights[BIAS_AT + tile.channel];");
    for y in 0..height {
        for x in 0..width {
            let _ = writeln!(text, "    var s{y}_{x} = bias;");
        }
    }
    for row in taps_along(height, link.stride[0], kernel_height, link.dilation[0]) {
        let _ = writeln!(text, "    let y{row} = tile.top + {row};");
        let _ = writeln!(text, "    let row{row} = tile.input + u32(clamp(y{row}, 0, last_row)) * in_row_stride();");
        let _ = writeln!(text, "    let inside{row} = inside(y{row}, params.in_height);");
        for column in &columns {
            let _ = writeln!(
                text,
                "    let v{row}_{column} = select(Value(0.0), input[row{row} + at{column}], inside{row} && in{column});"
            );
        }
        for y in 0..height {
            for ky in (0..kernel_height).filter(|ky| y * link.stride[0] + ky * link.dilation[0] == row) {
                for x in 0..width {
                    for kx in 0..kernel_width {
                        let column = x * link.stride[1] + kx * link.dilation[1];
                        let tap = ky * kernel_width + kx;
                        let _ = writeln!(text, "    s{y}_{x} = fma(v{row}_{column}, w{tap}, s{y}_{x});");
                    }
                }
            }
        }
    }
    for y in 0..height {
        let _ = writeln!(text, "    let out{y} = tile.output + {y}u * out_row_stride();");
        for x in 0..width {
            let at = format!("out{y} + {x}u * OUT_PIXEL_STRIDE");
            let _ = writeln!(text, "    if {y}u < tile.rows && {x}u < tile.columns {{ store_value({at}, s{y}_{x}); }}");
        }
    }
    text.push_str("}\n");
    text
}
