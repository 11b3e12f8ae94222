// The source of an implicit matrix product: what the kernel sees at each output. No im2col buffer is made (Chetlur et
// al., arXiv 1410.0759).
//
//% if SEGMENTED
// It goes tap by tap: k counts kernel row, kernel column and input channel, and all channels of a tap are a segment.
// Where the kernel's tap meets the input is worked out once for a segment; inside it an address only moves on.
//% elif layout == "nchw"
// Each value is gathered by itself; k counts input channel, kernel row and kernel column.
//% else
// Each value is gathered by itself; k counts kernel row, kernel column and input channel.
//% endif
//% if scales != "none"
// Each channel of an image is multiplied by its scale; padding stays zero.
//% endif
//#
//# host     layout, geometry, SEGMENTED, DEPTH_IS_PADDED (whether k goes on behind the last value), UNEVEN (as
//#          params.wgsl has it, if SEGMENTED; then DEPTH_IS_PADDED); unless SEGMENTED, GROUP_IN (channels) and DEPTH (k
//#          without padding), which each k is divided by; scales (as tensors.wgsl has it) and SCALE_IS_SHARED (in NCHW,
//#          whether four neighbouring pixels are of one image); `pixel_count`, `load_input4`

//% if not SEGMENTED
const GROUP_IN: u32 = ${GROUP_IN}u;
const DEPTH: u32 = ${DEPTH}u;
const TAPS: u32 = KERNEL_HEIGHT * KERNEL_WIDTH;
//% endif

//% set scaled = scales != "none"
//% set own_channels = "located.channels" if UNEVEN else "params.group_in"
//% set scale_uint = "u32" if layout == "nhwc" or SCALE_IS_SHARED else "vec4<u32>"
//% set load_scales = "load_scale4" if layout == "nhwc" or not SCALE_IS_SHARED else "load_scale"
//% set uint, int, bool = "u32", "i32", "bool"
//% if layout == "nchw"
    //% set uint, int, bool = "vec4<u32>", "vec4<i32>", "vec4<bool>"
// Where the windows of four outputs are: their first rows and columns, which may lie in the padding.
//% else
// Where the window of an output is: its first row and column, which may lie in the padding.
//% endif
struct Place {
    // Of the group's first channel.
    image: ${uint},
    top: ${int},
    left: ${int},
    //% if scaled
    // The scale of the group's first channel.
    scale_at: ${scale_uint},
    //% endif
    //% if UNEVEN
    // The channels of the group.
    channels: u32,
    //% endif
}

//% if layout == "nchw"
fn place(pixel: u32, group: u32) -> Place {
    let pixels = min(vec4<u32>(pixel) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(pixel_count() - 1u));
    //% if scaled
    let plane = pixels / out_pixels() * params.in_channels + group * params.group_in;
    let image = plane * in_pixels();
    //% else
    let image = (pixels / out_pixels() * params.in_channels + group * params.group_in) * in_pixels();
    //% endif
    let rest = pixels % out_pixels();
    let top = vec4<i32>(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP);
    let left = vec4<i32>(rest % params.out_width * STRIDE_X) - i32(PAD_LEFT);
    return Place(
        image,
        top,
        left,
    //% if scaled
        plane${".x" if SCALE_IS_SHARED else ""},
    //% endif
    //% if UNEVEN
        group_channels(group),
    //% endif
    );
}
//% else
fn place(pixel: u32, group: u32) -> Place {
    let clamped = min(pixel, pixel_count() - 1u);
    let rest = clamped % out_pixels();
    return Place(
        clamped / out_pixels() * in_pixels() * params.in_channels + group * params.group_in,
        i32(rest / params.out_width * STRIDE_Y) - i32(PAD_TOP),
        i32(rest % params.out_width * STRIDE_X) - i32(PAD_LEFT),
        //% if scaled
        clamped / out_pixels() * params.in_channels + group * params.group_in,
        //% endif
        //% if UNEVEN
        group_channels(group),
        //% endif
    );
}
//% endif

//% if SEGMENTED
// What a tap sees at the outputs, and the k at which its channels begin.
struct Located {
    at: ${uint},
    inside: ${bool},
    first: u32,
        //% if scaled
    scale_at: ${scale_uint},
        //% endif
        //% if UNEVEN
    channels: u32,
        //% endif
}

    //% set kept = (", place.scale_at" if scaled else "") ~ (", place.channels" if UNEVEN else "")
    //% if layout == "nchw"
fn locate(place: Place, tap: u32) -> Located {
    let y = vec4<u32>(place.top + i32(tap / KERNEL_WIDTH * DILATION_Y));
    let x = vec4<u32>(place.left + i32(tap % KERNEL_WIDTH * DILATION_X));
    // A negative coordinate wraps to a large one.
    let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width));
    let at = place.image + select(vec4<u32>(0u), y * params.in_width + x, inside);
    return Located(at, inside, tap * params.segment_depth${kept});
}

fn fetch(k: u32, located: Located) -> vec4<f32> {
    let channel = k - located.first;
        //% if DEPTH_IS_PADDED
    if channel >= ${own_channels} {
        return vec4<f32>(0.0);
    }
        //% endif
        //% if scaled
    let scale = ${load_scales}(located.scale_at + channel);
        //% endif
    let values = load_input4(located.at + channel * in_pixels());
    // The last first: then a compiler waits once for all four.
        //% for component in ["w", "z", "y", "x"]
            //% set times = (" * scale" ~ ("" if SCALE_IS_SHARED else "." ~ component)) if scaled else ""
    let ${component} = select(0.0, values.${component}${times}, located.inside.${component});
        //% endfor
    return vec4<f32>(x, y, z, w);
}
    //% else
fn locate(place: Place, tap: u32) -> Located {
    let y = u32(place.top + i32(tap / KERNEL_WIDTH * DILATION_Y));
    let x = u32(place.left + i32(tap % KERNEL_WIDTH * DILATION_X));
    // A negative coordinate wraps to a large one.
    let inside = (y < params.in_height) & (x < params.in_width);
    let at = place.image + select(0u, (y * params.in_width + x) * params.in_channels, inside);
    return Located(at, inside, tap * params.segment_depth${kept});
}

fn fetch(k: u32, located: Located) -> vec4<f32> {
    let channels = vec4<u32>(k - located.first) + vec4<u32>(0u, 1u, 2u, 3u);
        //% if scaled
    let clamped = min(channels, vec4<u32>(${own_channels} - 1u));
    let values = load_input4(located.at + clamped) * ${load_scales}(located.scale_at + clamped);
        //% else
    let values = load_input4(located.at + min(channels, vec4<u32>(${own_channels} - 1u)));
        //% endif
        //% if DEPTH_IS_PADDED
    return select(vec4<f32>(0.0), values, (channels < vec4<u32>(${own_channels})) & vec4<bool>(located.inside));
        //% else
    return select(vec4<f32>(0.0), values, located.inside);
        //% endif
}
    //% endif
//% elif layout == "nchw"
// Four neighbouring outputs' values of one k.
fn fetch(k: u32, place: Place) -> vec4<f32> {
    let tap = k % TAPS;
    let y = vec4<u32>(place.top + i32(tap / KERNEL_WIDTH * DILATION_Y));
    let x = vec4<u32>(place.left + i32(tap % KERNEL_WIDTH * DILATION_X));
    // A negative coordinate wraps to a large one.
    let is_input = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width));
    //% if DEPTH_IS_PADDED
    let inside = is_input & vec4<bool>(k < DEPTH);
    //% else
    let inside = is_input;
    //% endif
    let at = place.image + k / TAPS * in_pixels() + y * params.in_width + x;
    //% if scaled
    let scale = ${load_scales}(place.scale_at + ${"min(k / TAPS, GROUP_IN - 1u)" if DEPTH_IS_PADDED else "k / TAPS"});
    return select(vec4<f32>(0.0), load_input4(select(vec4<u32>(0u), at, inside)) * scale, inside);
    //% else
    return select(vec4<f32>(0.0), load_input4(select(vec4<u32>(0u), at, inside)), inside);
    //% endif
}
//% else
// An output's values of four neighbouring k.
fn fetch(k: u32, place: Place) -> vec4<f32> {
    let all = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u);
    let tap = all / GROUP_IN;
    let y = vec4<u32>(place.top + vec4<i32>(tap / KERNEL_WIDTH * DILATION_Y));
    let x = vec4<u32>(place.left + vec4<i32>(tap % KERNEL_WIDTH * DILATION_X));
    // A negative coordinate wraps to a large one.
    let inside = (y < vec4<u32>(params.in_height)) & (x < vec4<u32>(params.in_width)) & (all < vec4<u32>(DEPTH));
    let at = place.image + (y * params.in_width + x) * params.in_channels + all % GROUP_IN;
    //% if scaled
    let scale = ${load_scales}(place.scale_at + all % GROUP_IN);
    return select(vec4<f32>(0.0), load_input4(select(vec4<u32>(0u), at, inside)) * scale, inside);
    //% else
    return select(vec4<f32>(0.0), load_input4(select(vec4<u32>(0u), at, inside)), inside);
    //% endif
}
//% endif
