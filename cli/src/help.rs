//! The parts of `--help` besides the options: examples, and the grammar of problems.

/// The heading of the options that all commands share.
pub const DEVICE: &str = "Device";

/// Examples of a command: the arguments of `gpuconv`, and what they do.
type Examples = &'static [[&'static str; 2]];

pub const GPUCONV: Examples = &[
    ["devices", "list the devices"],
    ["plan \"separable 1x512x14x14 -> 512 k3 p1 relu6\"", "which kernels would run, and why"],
    ["bench \"mobilenet_v2 1\"", "how long a network takes here"],
];
pub const DEVICES: Examples = &[
    ["devices", "all adapters, and which one the commands use"],
    ["devices --adapter intel", "the same, if the commands use an adapter by name"],
];
pub const COST: Examples = &[
    ["cost \"separable 1x512x128x128 -> 1024 k3 s2 p1\"", "compared with the standard convolution that it replaces"],
    ["cost --json \"mobilenet_v1 1\" | jq .mult_adds", "a number for a script"],
];
pub const PLAN: Examples = &[
    ["plan \"separable 1x512x14x14 -> 512 k3 p1 relu6\"", "the recipes, and why no others"],
    ["plan --measure \"pointwise 1x512x14x14 -> 512\"", "the model's times beside measured ones"],
    ["plan --device gpu --wgsl shaders \"mobilenet_v2 1\"", "the shaders that a GPU would get"],
];
pub const RUN: Examples = &[
    ["run \"conv 1x3x224x224 -> 32 k3 s2 p1 relu6\" --input x.npy --weight w.npy --bias b.npy --output y.npy", ""],
    [
        "run \"separable 1x8x32x32 -> 16 k3 p1 nobias\" --input x.npy --weight w.npy --pointwise-weight pw.npy \
         --output y.npy",
        "both halves of a separable convolution",
    ],
    [
        "run mobilenet_v3_large --weights mobilenet_v3_large.safetensors --input x.npy --output y.npy",
        "a network, for images of the input's size",
    ],
];
pub const BENCH: Examples = &[
    ["bench \"conv 1x64x56x56 -> 64 k3 p1\" \"depthwise 1x64x56x56 k3 p1\"", "several problems in one table"],
    ["bench --kernel all \"pointwise 1x512x14x14 -> 512\"", "every kernel that takes the problem"],
    ["bench --without robustness \"mobilenet_v2 1\"", "on a Vulkan device that checks no access to a buffer"],
    ["bench --json \"mobilenet_v2 8\" | jq .wall_ms.median", "a number for a script"],
];
pub const TUNE: Examples = &[
    ["tune --network mobilenet_v2", "tune the layers of a network; later calls use the times"],
    ["tune --cases layers.txt --output tuned.json", "tune a file of problems, into a file that a program can ship"],
    ["tune --output all.json --merge a.json b.json", "join the times of several machines in one file"],
];
pub const VERIFY: Examples = &[
    ["verify", "check every kernel on this device"],
    ["verify --kernel winograd --all-variants", "one kernel, all its recipes"],
    ["verify \"depthwise 1x32x17x19 k5 s2 p2\"", "your own problem"],
];
pub const REPORT: Examples = &[
    ["report", "some layers and a network, into report.html"],
    ["report --network mobilenet_v1 --output v1.html", "a network, step by step"],
    ["report --json \"separable 1x128x56x56 -> 128 k3 p1 relu6\" > numbers.json", "only the numbers"],
];
pub const COMPLETIONS: Examples = &[
    ["completions bash > ~/.local/share/bash-completion/completions/gpuconv", ""],
    ["completions fish > ~/.config/fish/completions/gpuconv.fish", ""],
];
pub const MAN: Examples = &[
    ["man > ~/.local/share/man/man1/gpuconv.1", "for `man gpuconv`"],
    ["man plan | man -l -", "show the page of one command"],
];

/// The grammar of problems.
const PROBLEMS: &str = "\
A problem is one argument (quote it):
  conv       NxCxHxW -> OC kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [dD|dHxW] [gG]
             [ACTIVATION] [scaled] [RESIDUAL] [nobias] [f16] [nhwc]
  depthwise  NxCxHxW [-> OC] kK ...
  pointwise  NxCxHxW -> OC ... [mean]        `mean` takes that of each channel
  separable  NxCxHxW -> OC kK ...        the activation follows both halves, prelu the second
  transposed NxCxHxW -> OC kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [oO|oHxW] [dD|dHxW] [gG]
             [ACTIVATION] [nobias] [f16] [nhwc]
  prelu      NxCxHxW [f16] [nhwc]        a slope for each channel
  maxpool    NxCxHxW kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [dD|dHxW] [ceil] [f16] [nhwc]
  avgpool    NxCxHxW kK|kHxW [sS|sHxW] [pP|pT,L,B,R] [ceil] [excludepad] [f16] [nhwc]
  pool       NxCxHxW [f16] [nhwc]        the mean of each channel
  resize     NxCxHxW -> HxW [bilinear [aligned]] [f16] [nhwc]
  resize     NxCxHxW xF|xF,F ...         by a factor, or one for rows and one for columns
  pixelshuffle|pixelunshuffle NxCxHxW rR [f16] [nhwc]
  slice      NxCxHxW FIRST..END [f16] [nhwc]        these of the channels
  concat     NxCxHxW C,C,... [f16] [nhwc]        slices put together, the first from the end
  gate       NxCxHxW -> SQUEEZED [ACTIVATION GATE] [nobias] [f16] [nhwc]   a value for each channel
  NETWORK    N|Nx3xHxW [-> CLASSES] [wWIDTH] [f16] [nhwc]
NETWORK is mobilenet_v1, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small, mobilenetv4_conv_small, \
 mobilenetv4_conv_medium, mnasnet1_0, efficientnet_b0, efficientnet_lite0, mobileone_s0, repvgg_a0, \
 resnet18, resnet34, resnet50, tf_mobilenetv3_large_100, tf_mobilenetv3_small_100, tf_efficientnet_b0, \
 tf_efficientnet_lite0; lraspp_mobilenet_v3_large, for segmentation; or one that enlarges images, with any number of \
 channels and no CLASSES: espcn_x2, _x3, _x4, srvgg_x2, _x3, _x4, realesr_general_x4v3; for text ppocr_v4_det, whose H and W \
 must be multiples of 32, and ppocr_cls, whose H must be at least 33.
ACTIVATION is relu, relu6, silu, hardswish, sigmoid, hardsigmoid, tanh, gelu, leakyrelu:SLOPE, clamp:LOW,HIGH or, but for \
 gates, prelu, a link behind the convolution; scaled multiplies the input by a value for each image and channel; RESIDUAL is \
 residual (added before the activation) or residual:after. Defaults: stride 1, padding 0, dilation 1, one group, a bias, no \
 activation (of gates relu sigmoid), elements in f32, NCHW; for pools the kernel as stride, and means that count the padding; \
 for networks images of 224x224, as many classes as their published weights have, width 1.";

const EXIT_CODES: &str =
    "Exit codes: 0 success, 1 a check failed, 2 the call or its files are wrong, 3 no usable device, or it failed.";

/// The end of `-h`.
pub fn short(examples: Examples) -> String {
    let line = |[call, what]: &[&str; 2]| match *what {
        "" => format!("  gpuconv {call}\n"),
        what => format!("  gpuconv {call}\n      {what}\n"),
    };
    format!("Examples:\n{}", examples.iter().map(line).collect::<String>())
}

/// The end of `--help`.
pub fn long(examples: Examples) -> String {
    format!("{}\n{EXIT_CODES}", short(examples))
}

/// The end of `--help` of a command that takes problems.
pub fn with_problems(examples: Examples) -> String {
    format!("{}\n{PROBLEMS}\n\n{EXIT_CODES}", short(examples))
}
