//! `run`: a convolution or a network from npy files to an npy file. The files are in PyTorch's order; a problem's
//! `nhwc` is only the layout on the device. They hold float32 or float16, the output what the problem says.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use gpuconv::nets::NETWORKS;
use gpuconv::shape::{from_nchw, to_nchw};
use gpuconv::{Conv2d, Layer, Operation, Problem, Residual, Shape, Weights};
use serde::Serialize;

use super::{Case, Failure, KernelOptions, Outcome, Target, adapter_name, files, npy, print_json};

#[derive(Args)]
pub struct Run {
    /// Write an object about the run
    #[arg(long)]
    json: bool,
    /// The problem to compute, or the name of a network for images of the input's size
    problem: String,
    /// The input, N x C x H x W; for a network images that are normalized already, N x 3 x H x W
    #[arg(long, value_name = "X.NPY")]
    input: PathBuf,
    /// The weight, OC x IC/g x KH x KW; for a separable convolution, that of its depthwise half
    #[arg(long, value_name = "W.NPY")]
    weight: Option<PathBuf>,
    /// A network's weights, by the names of timm, torchvision or the network's authors
    #[arg(long, value_name = "W.SAFETENSORS", conflicts_with_all =
        ["weight", "bias", "pointwise_weight", "pointwise_bias", "residual"])]
    weights: Option<PathBuf>,
    /// The bias, OC; for a separable convolution, that of its depthwise half
    #[arg(long, value_name = "B.NPY")]
    bias: Option<PathBuf>,
    /// The weight of a separable convolution's pointwise half, OC x C x 1 x 1
    #[arg(long, value_name = "W.NPY")]
    pointwise_weight: Option<PathBuf>,
    /// The bias of a separable convolution's pointwise half, OC
    #[arg(long, value_name = "B.NPY")]
    pointwise_bias: Option<PathBuf>,
    /// A tensor of the output's shape, added before the activation unless the problem says `residual:after`
    #[arg(long, value_name = "R.NPY")]
    residual: Option<PathBuf>,
    /// Where the output goes, N x OC x OH x OW, in the problem's element type
    #[arg(long, value_name = "Y.NPY")]
    output: PathBuf,
    /// Use this kernel or recipe; two, joined by `+`, for the two halves of a separable convolution
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    #[command(flatten)]
    options: KernelOptions,
}

/// What `run` did, in JSON.
#[derive(Serialize)]
struct Done<'a> {
    problem: String,
    adapter: String,
    schedule: String,
    output: &'a Path,
    shape: [u32; 4],
    /// The time of a first use: from requesting a device to the output on the host, including compilation.
    first_ms: f64,
}

/// The contents of the files.
struct Files {
    input: Vec<f32>,
    weights: Vec<(Vec<f32>, Option<Vec<f32>>)>,
    residual: Option<Vec<f32>>,
}

impl Run {
    pub fn execute(&self, target: &Target) -> Outcome {
        let mut problem = self.problem()?;
        let adds_residual = problem.chain().outside_residual().is_some();
        match &self.residual {
            Some(_) if !adds_residual => problem = problem.with_residual(Residual::BeforeActivation),
            None if adds_residual => {
                return Err(Failure::Call(
                    "the problem adds a residual: give --residual, or remove the word `residual`".into(),
                ));
            }
            _ => {}
        }
        // Read the files first, to find mistakes in them without a device.
        let arrays = self.read(&problem)?;
        let (output, done) = self.compute(target, &problem, &arrays)?;
        let written = files::write(&self.output, &npy::encode(problem.output()?, problem.dtype, &output));
        written.map_err(|error| Failure::Call(format!("cannot write {}: {error}", self.output.display())))?;
        if self.json { print_json(&done) } else { Ok(()) }
    }

    /// The problem. A network's name alone is for the images that there are.
    fn problem(&self) -> Outcome<Problem> {
        if !NETWORKS.iter().any(|(name, ..)| *name == self.problem.trim()) {
            return Ok(Case::parse(&self.problem)?.problem);
        }
        let shape = npy::shape(&self.input)?;
        let extents = shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
        Ok(Case::parse(&format!("{} {extents}", self.problem.trim()))?.problem)
    }

    fn read(&self, problem: &Problem) -> Outcome<Files> {
        let first = ("--weight", self.weight.as_deref(), "--bias", self.bias.as_deref());
        let second = (
            "--pointwise-weight",
            self.pointwise_weight.as_deref(),
            "--pointwise-bias",
            self.pointwise_bias.as_deref(),
        );
        let weights = match &problem.operation {
            Operation::Separable(separable) => {
                let depthwise = parameters(&separable.depthwise, "depthwise ", first)?;
                vec![depthwise, parameters(&separable.pointwise, "pointwise ", second)?]
            }
            Operation::Conv(conv) | Operation::Depthwise(conv) | Operation::Pointwise(conv) => {
                if second.1.or(second.3).is_some() {
                    let message = "--pointwise-weight and --pointwise-bias are for `separable` problems only";
                    return Err(Failure::Call(message.into()));
                }
                vec![parameters(conv, "", first)?]
            }
            Operation::Network(network) => {
                let Some(path) = &self.weights else {
                    return Err(Failure::Call("a network has many weights: give --weights, a safetensors file".into()));
                };
                let unreadable = |error| Failure::Call(format!("cannot read {}: {error}", path.display()));
                let weights = network.weights(&std::fs::read(path).map_err(unreadable)?);
                let weights = weights.map_err(|error| Failure::from(error).at(path.display()))?;
                weights.into_iter().map(|own| (own.weight, own.bias)).collect()
            }
            Operation::ThenPRelu(_) => {
                return Err(Failure::Call("`run` takes no slopes: remove the word `prelu`".into()));
            }
            _ => return Err(Failure::Call("`run` is for convolutions and networks".into())),
        };
        if self.weights.is_some() && !matches!(problem.operation, Operation::Network(_)) {
            return Err(Failure::Call("--weights is for networks; a convolution has --weight and --bias".into()));
        }
        if problem.chain().outside_scale().is_some() {
            return Err(Failure::Call("`run` takes no scale: remove the word `scaled`".into()));
        }
        let output = problem.output()?;
        let residual = self.residual.as_deref().map(|path| tensor(path, "residual", output)).transpose()?;
        Ok(Files { input: tensor(&self.input, "input", problem.input)?, weights, residual })
    }

    fn compute(&self, target: &Target, problem: &Problem, files: &Files) -> Outcome<(Vec<f32>, Done<'_>)> {
        let start = Instant::now();
        let gpu = target.open()?;
        let weights: Vec<_> =
            files.weights.iter().map(|(weight, bias)| Weights { weight, bias: bias.as_deref() }).collect();
        let layer: Layer = gpu.chain_with(&problem.chain(), &weights, self.options.choice(self.kernel.as_deref()))?;
        layer.warm_up(problem.input, problem.layout)?;
        let (layout, dtype) = (problem.layout, problem.dtype);
        let upload = |values: &[f32], shape| gpu.upload_of(&from_nchw(values, shape, layout), shape, layout, dtype);
        let input = upload(&files.input, problem.input)?;
        let output = match &files.residual {
            Some(residual) => layer.forward((&input, &upload(residual, problem.output()?)?))?,
            None => layer.forward(&input)?,
        };
        let values = to_nchw(&gpu.download(&output)?, output.shape(), output.layout());
        let done = Done {
            problem: problem.to_string(),
            adapter: adapter_name(&gpu),
            schedule: layer.schedule(problem.input, problem.layout)?.name(),
            output: &self.output,
            shape: output.shape().into(),
            first_ms: start.elapsed().as_secs_f64() * 1e3,
        };
        Ok((values, done))
    }
}

fn tensor(path: &Path, what: &str, shape: Shape) -> Outcome<Vec<f32>> {
    npy::read(path, what, &<[u32; 4]>::from(shape).map(u64::from))
}

/// A link's weight and bias, from the files that two options name.
fn parameters(
    conv: &Conv2d,
    half: &str,
    (weight_option, weight, bias_option, bias): (&str, Option<&Path>, &str, Option<&Path>),
) -> Outcome<(Vec<f32>, Option<Vec<f32>>)> {
    let Some(weight) = weight else {
        return Err(Failure::Call(match half {
            "" => format!("a convolution has a weight: give {weight_option}"),
            _ => format!("a separable convolution has two weights: also give {weight_option}"),
        }));
    };
    let bias_path = match (conv.bias, bias) {
        (true, None) => {
            return Err(Failure::Call(format!("the problem has a bias: give {bias_option}, or add `nobias` to it")));
        }
        (false, Some(_)) => {
            return Err(Failure::Call(format!("{bias_option} is given, but the problem says `nobias`")));
        }
        (_, path) => path,
    };
    let weight = tensor(weight, &format!("{half}weight"), conv.weight_shape())?;
    let bias = bias_path.map(|path| npy::read(path, &format!("{half}bias"), &[conv.out_channels.into()]));
    Ok((weight, bias.transpose()?))
}
