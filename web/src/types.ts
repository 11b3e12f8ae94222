/** Images, channels, rows, columns. */
export type Shape = [number, number, number, number] | number[];
/** The order of a tensor's elements. */
export type Layout = "nchw" | "nhwc";
/** How numbers are stored on the GPU; arithmetic is in f32 for both. */
export type DType = "f32" | "f16";
/** What follows a sum; two numbers clamp it. */
export type Activation =
    | "none"
    | "relu"
    | "relu6"
    | "silu"
    | "hardswish"
    | "sigmoid"
    | "hardsigmoid"
    | "tanh"
    | "gelu"
    | `leakyrelu:${number}`
    | [low: number, high: number];

/** What all convolutions have. Numbers are called what PyTorch calls them. */
export interface Geometry {
    /** Steps between two outputs, for both directions or for rows and columns; 1. */
    stride?: number | [rows: number, columns: number];
    /** Zeros around the input, on all sides, by rows and columns, or for each side; 0. */
    padding?: number | [rows: number, columns: number] | [top: number, left: number, bottom: number, right: number];
    activation?: Activation;
    /** Where a residual is added, which `forward` then takes: before the activation or after it. */
    residual?: "before" | "after";
    /** Of weights, tensors and residual; f32. Weights are given as f32 for both, and rounded. */
    dtype?: DType;
}

export interface ConvOptions extends Geometry {
    inChannels: number;
    outChannels: number;
    kernelSize: number | [rows: number, columns: number];
    dilation?: number | [rows: number, columns: number];
    groups?: number;
    /** Whether the input is multiplied by a value for each image and channel, which `forward` then takes; false. */
    scaled?: boolean;
}

export interface DepthwiseOptions extends Geometry {
    channels: number;
    /** A multiple of the channels. */
    outChannels?: number;
    kernelSize: number | [rows: number, columns: number];
    dilation?: number | [rows: number, columns: number];
    /** Whether the input is multiplied by a value for each image and channel, which `forward` then takes; false. */
    scaled?: boolean;
}

export interface PointwiseOptions extends Geometry {
    inChannels: number;
    outChannels: number;
    groups?: number;
    /** Whether the input is multiplied by a value for each image and channel, which `forward` then takes; false. */
    scaled?: boolean;
}

export interface SeparableOptions extends Geometry {
    inChannels: number;
    outChannels: number;
    kernelSize: number | [rows: number, columns: number];
    dilation?: number | [rows: number, columns: number];
}

/** In PyTorch's order: output channels, input channels of a group, rows, columns. */
export interface ConvWeights {
    weight: Float32Array;
    /** One for each output channel. */
    bias?: Float32Array;
}

export interface SeparableWeights {
    depthwise: Float32Array;
    depthwiseBias?: Float32Array;
    pointwise: Float32Array;
    pointwiseBias?: Float32Array;
}

/** A step of a chain. Tensor 0 is the chain's input, tensor 1 the output of the first step, and so on. */
export interface ChainStep {
    /** Its problem line, with the shape that it reads. */
    problem: string;
    /** The tensor that it reads, if not the output of the step before. */
    reads?: number;
    /** The tensor that its last convolution adds: after the activation if the line says `residual:after`, else before it. */
    adds?: number;
    /** The tensor by which it multiplies what it reads: what a gate gives. */
    scaledBy?: number;
}

/** What a network makes of an image. */
export type NetworkTask =
    "classification" | "segmentation" | "super-resolution" | "text detection" | "text direction";

export interface NetworkOptions {
    /** The multiplier of all channels; 1. */
    width?: number;
    /** What published weights have: 1000 where images are classified. Of a network whose outputs are images, their channels; 3. */
    classes?: number;
    /** f32. */
    dtype?: DType;
    /**
     * Rows and columns of the images, for networks that are made for a size: those with TensorFlow's padding (`tf_` names), which
     * need it, and those for segmentation, which take multiples of 16 without it.
     */
    imageSize?: number | [rows: number, columns: number];
}

export interface BufferOptions {
    /** Where in the buffer the tensor starts, bytes. */
    offset?: number;
    layout?: Layout;
    dtype?: DType;
}

/** What a device is. Sizes are in bytes. */
export interface DeviceInfo {
    adapter: string;
    /** What the planner takes it for. */
    planned_as: string;
    /** Whether it computes on the CPU. */
    is_software: boolean;
    max_storage_binding: number;
    max_buffer: number;
    max_workgroup_memory: number;
    max_invocations: number;
    /** The smallest and the largest. */
    subgroup: [number, number] | null;
    timestamps: boolean;
    /** Whether shaders have half-precision numbers. Without them f16 works as well, by words of two. */
    f16: boolean;
}

export interface Plan {
    problem: string;
    /** The recipes, joined by `+`. */
    kernel: string;
    predicted_ms: number;
    steps: { recipe: string; first: number; links: number; dispatches: number; predicted_ms: number }[];
    /** Why a kernel cannot be used. */
    rejected: Record<string, string>;
    mult_adds: number;
    bytes_fused: number;
    bytes_unfused: number;
    workspace: number;
    in_bands: boolean;
}

export interface VerifyOptions {
    /** Problem lines; the table of cases. */
    problems?: string[];
    progress?: (at: VerifyProgress) => void;
    signal?: AbortSignal;
}

export interface VerifyProgress {
    /** Cases. */
    done: number;
    total: number;
    checks: number;
    failures: number;
    /** The case in work. */
    problem: string;
    /** The checks that failed since the call before. */
    failed: FailedCheck[];
}

export interface FailedCheck {
    problem: string;
    schedule: string;
    complaint: string;
}

export interface Verified {
    version: string;
    adapter: string;
    cases: number;
    checks: number;
    failures: number;
    seconds: number;
    kernels: {
        kernel: string;
        cases: number;
        checks: number;
        failures: number;
        /** Null if it is no number. */
        worst_share_of_bound: number | null;
        worst_rel_err: number | null;
    }[];
    failed: FailedCheck[];
}

export interface Bench {
    problem: string;
    kernel: string;
    adapter: string;
    /** From typed array to typed array. */
    e2e_ms: { min: number; median: number; max: number; runs: number };
    /** Weights to the device, and compiling. */
    load_ms: number;
    first_ms: number;
    mult_adds: number;
    /** Null for what takes the oracle too long. */
    rel_err: number | null;
}

/** Whether links are fused into a dispatch, and what stops the work. */
export interface MeasureOptions {
    fusion?: "auto" | "never" | "always";
    signal?: AbortSignal;
}

export interface MeasuredStep {
    recipe: string;
    layer: string;
    first: number;
    links: number;
    ms: number;
    /** Floating-point operations, two for each multiply-add. */
    flops: number;
    /** With idle and recomputed ones. */
    flops_done: number;
    /** From and to memory. */
    bytes: number;
    is_by_device_clock: boolean;
}

export interface TuneOptions {
    /** What it may take; 60. */
    seconds?: number;
    progress?: (at: { done: number; total: number; run: string; recipe: string }) => void;
    signal?: AbortSignal;
}

export interface TunedRun {
    run: string;
    candidates: { recipe: string; predicted_ms: number; ms: number | null; outcome: string | null }[];
}

/** Each a second, but for the seconds of a dispatch and the number of workgroups that fill the device. */
export interface Rates {
    mult_adds: number;
    accesses: number;
    shared: number;
    bytes: number;
    dispatch: number;
    parallel: number;
}
