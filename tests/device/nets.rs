//! Whole networks against ONNX Runtime. `scripts/reference_networks` wrote its logits to files.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gpuconv::internals::random;
use gpuconv::nets::{self, NETWORKS, Network, Task, mobilenet_v1, mobilenet_v2};
use gpuconv::verify::{self, Oracle};
use gpuconv::{
    Choice, DType, Error, Fusion, GpuConv, Layer, Layout, OwnedWeights, Problem, Result, Tensor, Weights, planner,
    shape,
};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// One device per network: a network's tests share compiled shaders, and the two networks compile in parallel.
static GPUS: [LazyLock<GpuConv>; 2] = [LazyLock::new(open), LazyLock::new(open)];

fn open() -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}"))
}

fn gpu(name: &str) -> &'static GpuConv {
    &GPUS[usize::from(name == "mobilenet_v2")]
}

/// The number of images with known logits.
const BATCH: u32 = 3;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn build(name: &str, width: f64, classes: u32) -> Result<Network> {
    let (.., make) = NETWORKS.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("{name}"));
    make(width, classes)
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    let path = folder.join(format!("{name}.safetensors"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(tensor: &TensorView<'_>) -> Vec<f32> {
    tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// A network with ONNX Runtime's results.
struct Reference {
    network: Network,
    /// Rows and columns of the images.
    size: u32,
    images: Vec<f32>,
    /// The logits of all images, one after the other, or one in `step` of them.
    logits: Vec<f32>,
    step: usize,
}

impl Reference {
    fn new(folder: &Path, name: &str, publisher: &str) -> Self {
        let file = read(folder, &format!("{name}.answer"));
        let answer = SafeTensors::deserialize(&file).unwrap();
        let number = |name| Some(<[u8; 8]>::try_from(answer.tensor(name).ok()?.data()).unwrap());
        let whole = |name| number(name).map(i64::from_le_bytes);
        let (width, size) = (f64::from_le_bytes(number("width").unwrap()), whole("size").unwrap() as u32);
        // Batch norms may have another constant in another publisher's network.
        let logits = answer.tensor(&format!("logits.{publisher}")).unwrap();
        let classes = whole("classes").map_or(logits.shape()[1] as u32, |classes| classes as u32);
        let network = build(name, width, classes).unwrap().sized([BATCH, 3, size, size]).unwrap();
        let images = random::uniform(&format!("{name}/x"), u64::from(BATCH * 3 * size * size), 2.0);
        Self { network, size, images, logits: floats(&logits), step: whole("step").unwrap_or(1) as usize }
    }

    fn gpu(&self) -> &'static GpuConv {
        gpu(self.network.name)
    }

    fn layer(&self, weights: &[OwnedWeights], fusion: Fusion, dtype: DType) -> Layer {
        let chain = self.network.chain.clone().with_dtype(dtype);
        self.gpu().chain_with(&chain, &borrow(weights), Choice::Fusion(fusion)).unwrap()
    }

    fn upload(&self, batch: u32, layout: Layout, dtype: DType) -> Tensor {
        let shape = [batch, 3, self.size, self.size];
        let images = &self.images[..(batch * 3 * self.size * self.size) as usize];
        self.gpu().upload_of(&shape::from_nchw(images, shape, layout), shape, layout, dtype).unwrap()
    }

    /// Asserts that a layer's logits agree with the reference, and returns the largest relative error of an image.
    fn check(&self, layer: &Layer, batch: u32, layout: Layout) -> f64 {
        let dtype = layer.chain().dtype();
        let what = format!("{} {dtype} {layout}, batch {batch}", self.network.name);
        let y = layer.forward(&self.upload(batch, layout, dtype)).unwrap();
        assert_eq!((y.shape().batch, y.shape().channels), (batch, self.network.classes), "{what}");
        let logits = shape::to_nchw(&self.gpu().download(&y).unwrap(), y.shape(), layout);
        let images = logits.chunks_exact(logits.len() / batch as usize);
        let expected = self.logits.chunks_exact(self.logits.len() / BATCH as usize);
        let errors = images.zip(expected).map(|(logits, expected)| {
            let logits: Vec<_> = logits.iter().step_by(self.step).copied().collect();
            assert_eq!(logits.len(), expected.len(), "{what}");
            let places = |logits| nets::top(logits, 5).into_iter().map(|(class, _)| class).collect::<Vec<_>>();
            if self.network.task == Task::Classification {
                assert_eq!(places(&logits), places(expected), "{what}");
            }
            relative_error(&logits, expected)
        });
        let error = errors.fold(0.0, f64::max);
        let most = if dtype == DType::F16 { 5e-3 } else { 1e-4 };
        assert!(error <= most, "{what}: {error:e}");
        error
    }
}

fn borrow(weights: &[OwnedWeights]) -> Vec<Weights<'_>> {
    weights.iter().map(OwnedWeights::borrow).collect()
}

fn relative_error(values: &[f32], expected: &[f32]) -> f64 {
    let norm = |terms: &mut dyn Iterator<Item = f64>| terms.map(|term| term * term).sum::<f64>().sqrt();
    let error = norm(&mut values.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let error = error / norm(&mut expected.iter().map(|&value| value.into()));
    // `f64::max` would ignore a NaN.
    if error.is_nan() { f64::INFINITY } else { error }
}

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

/// Checks a network as the planner plans it, in one layout.
fn agrees_with_onnx_runtime(name: &str, publisher: &str, layout: Layout, dtype: DType) {
    let reference = Reference::new(&fixtures(), name, publisher);
    let weights = reference.network.weights(&read(&fixtures(), &format!("{name}.{publisher}"))).unwrap();
    let layer = reference.layer(&weights, Fusion::Auto, dtype);
    reference.check(&layer, 1, layout);
    reference.check(&layer, BATCH, layout);
}

/// Checks a network with every combination of publisher, fusion, layout and batch. Prints a line for each publisher and
/// fusion.
fn agrees_with_onnx_runtime_by_any_fusion(folder: &Path, name: &str, publishers: &[&str], dtype: DType) {
    for publisher in publishers {
        let reference = Reference::new(folder, name, publisher);
        let weights = reference.network.weights(&read(folder, &format!("{name}.{publisher}"))).unwrap();
        for fusion in [Fusion::Auto, Fusion::Never, Fusion::Always] {
            let layer = reference.layer(&weights, fusion, dtype);
            let images = reference.upload(1, Layout::Nchw, dtype).shape();
            let (steps, links) =
                (layer.schedule(images, Layout::Nchw).unwrap().steps.len(), layer.chain().links().len());
            match fusion {
                Fusion::Never => assert_eq!(steps, links),
                Fusion::Always if ["mobilenet_v1", "mobilenet_v2"].contains(&name) => {
                    assert!(steps < links - 12, "{steps} steps for {links} links");
                }
                _ => {}
            }
            let check = |batch, layout| reference.check(&layer, batch, layout);
            let [nchw, nhwc] = LAYOUTS.map(|layout| format!("{:.1e} {:.1e}", check(1, layout), check(BATCH, layout)));
            println!("{name} {dtype} {publisher} {fusion:?}, batch 1 and {BATCH}: NCHW {nchw}, NHWC {nhwc}");
        }
    }
}

#[test]
fn mobilenet_v2_agrees_with_onnx_runtime() {
    agrees_with_onnx_runtime("mobilenet_v2", "torchvision", Layout::Nhwc, DType::F32);
}

#[test]
#[ignore = "takes ten seconds where shaders are new"]
fn mobilenet_v1_in_f16_agrees_with_onnx_runtime_in_full() {
    agrees_with_onnx_runtime("mobilenet_v1", "timm", Layout::Nchw, DType::F16);
}

#[test]
#[ignore = "takes a minute"]
fn mobilenet_v3_small_agrees_with_onnx_runtime_in_full() {
    agrees_with_onnx_runtime("mobilenet_v3_small", "torchvision", Layout::Nchw, DType::F32);
}

#[test]
#[ignore = "takes a minute"]
fn mobilenet_v3_small_in_f16_agrees_with_onnx_runtime_in_full() {
    agrees_with_onnx_runtime("mobilenet_v3_small", "torchvision", Layout::Nhwc, DType::F16);
}

#[test]
#[ignore = "takes a minute"]
fn segmentation_agrees_with_onnx_runtime_in_full() {
    for layout in LAYOUTS {
        agrees_with_onnx_runtime("lraspp_mobilenet_v3_large", "torchvision", layout, DType::F32);
    }
}

#[test]
#[ignore = "takes a minute"]
fn segmentation_agrees_with_the_oracle_in_full() {
    let (gpu, network) = (open(), nets::lraspp_mobilenet_v3_large(0.05, 5).unwrap());
    for layout in LAYOUTS {
        let (chain, input) = (network.chain.clone(), [1, 3, 64, 48]);
        let schedule = planner::schedule(&chain, input, layout, gpu.caps(), &Choice::Auto).unwrap();
        let report =
            Oracle::of_chain("lraspp", chain, input, layout, u64::MAX).unwrap().check(&gpu, &schedule).unwrap();
        assert!(report.passes(), "{layout}: {report:?}");
    }
}

/// Those that the tests above leave out, or have in one fusion, with the publisher of their weights.
const OTHERS: &[(&str, &str)] = &[
    ("mobilenet_v3_large", "torchvision"),
    ("mobilenetv4_conv_small", "timm"),
    ("mobilenetv4_conv_medium", "timm"),
    ("mnasnet1_0", "torchvision"),
    ("efficientnet_b0", "torchvision"),
    ("efficientnet_lite0", "timm"),
    ("mobileone_s0", "timm"),
    ("repvgg_a0", "timm"),
    ("resnet18", "torchvision"),
    ("resnet34", "torchvision"),
    ("resnet50", "torchvision"),
    ("lraspp_mobilenet_v3_large", "torchvision"),
    ("espcn_x2", "yjn870"),
    ("espcn_x4", "yjn870"),
    ("srvgg_x3", "real-esrgan"),
    ("realesr_general_x4v3", "real-esrgan"),
];

/// Networks with TensorFlow's padding and its number in batch norms, which have the weights of others.
#[test]
#[ignore = "takes a minute"]
fn networks_of_tensorflow_agree_with_onnx_runtime_in_full() {
    for (index, (name, owner, publisher)) in [
        ("tf_mobilenetv3_large_100", "mobilenet_v3_large", "torchvision"),
        ("tf_mobilenetv3_small_100", "mobilenet_v3_small", "torchvision"),
        ("tf_efficientnet_b0", "efficientnet_b0", "torchvision"),
        ("tf_efficientnet_lite0", "efficientnet_lite0", "timm"),
    ]
    .into_iter()
    .enumerate()
    {
        let reference = Reference::new(&fixtures(), name, "timm");
        let network = &reference.network;
        let mut owner = build(owner, network.width, network.classes).unwrap();
        owner.eps = network.eps;
        assert_eq!(network.timm, owner.timm, "{name}");
        let weights = owner.weights(&read(&fixtures(), &format!("{}.{publisher}", owner.name))).unwrap();
        for fusion in [Fusion::Auto, Fusion::Never] {
            let layer = reference.layer(&weights, fusion, DType::F32);
            reference.check(&layer, 1, LAYOUTS[index % 2]);
            reference.check(&layer, BATCH, LAYOUTS[index % 2]);
        }
    }
}

#[test]
fn images_are_enlarged_as_onnx_runtime_does_it() {
    agrees_with_onnx_runtime("espcn_x3", "yjn870", Layout::Nchw, DType::F32);
}

#[test]
#[ignore = "takes ten seconds where shaders are new"]
fn a_compact_srvgg_agrees_with_onnx_runtime_in_full() {
    agrees_with_onnx_runtime("srvgg_x2", "real-esrgan", Layout::Nhwc, DType::F32);
    agrees_with_onnx_runtime("srvgg_x4", "real-esrgan", Layout::Nchw, DType::F32);
    agrees_with_onnx_runtime("srvgg_x4", "real-esrgan", Layout::Nhwc, DType::F16);
}

#[test]
#[ignore = "takes minutes"]
fn other_networks_agree_with_onnx_runtime_in_full() {
    for (index, (name, publisher)) in OTHERS.iter().enumerate() {
        agrees_with_onnx_runtime(name, publisher, LAYOUTS[index % 2], DType::F32);
    }
}

#[test]
#[ignore = "takes minutes"]
fn every_fusion_agrees_with_onnx_runtime_in_full() {
    agrees_with_onnx_runtime_by_any_fusion(&fixtures(), "mobilenet_v1", &["timm"], DType::F32);
    agrees_with_onnx_runtime_by_any_fusion(&fixtures(), "mobilenet_v2", &["timm", "torchvision"], DType::F32);
    agrees_with_onnx_runtime_by_any_fusion(&fixtures(), "mobilenet_v3_small", &["torchvision"], DType::F32);
}

#[test]
#[ignore = "takes minutes"]
fn every_fusion_of_other_networks_agrees_with_onnx_runtime_in_full() {
    for (name, publisher) in OTHERS {
        agrees_with_onnx_runtime_by_any_fusion(&fixtures(), name, &[publisher], DType::F32);
    }
}

#[test]
#[ignore = "takes minutes"]
fn every_fusion_in_f16_agrees_with_onnx_runtime_in_full() {
    agrees_with_onnx_runtime_by_any_fusion(&fixtures(), "mobilenet_v1", &["timm"], DType::F16);
    agrees_with_onnx_runtime_by_any_fusion(&fixtures(), "mobilenet_v2", &["torchvision"], DType::F16);
}

/// `scripts/reference_networks check` writes the networks and runs this.
#[test]
#[ignore = "needs the folder that GPUCONV_NETWORKS names"]
fn full_width_agrees_with_onnx_runtime() {
    let folder = std::env::var_os("GPUCONV_NETWORKS").expect("GPUCONV_NETWORKS is not set");
    for &dtype in DType::ALL {
        // Those that read text are compared by `scripts/ppocr check`.
        let is_other = |task: &Task| ![Task::TextDetection, Task::TextDirection].contains(task);
        for (name, ..) in NETWORKS.iter().filter(|(_, task, _)| is_other(task)) {
            let publishers = ["timm", "torchvision", "lornatang", "yjn870", "real-esrgan"];
            let is_there =
                |publisher: &&str| Path::new(&folder).join(format!("{name}.{publisher}.safetensors")).exists();
            let publishers: Vec<_> = publishers.into_iter().filter(is_there).collect();
            assert!(!publishers.is_empty(), "{name}");
            agrees_with_onnx_runtime_by_any_fusion(folder.as_ref(), name, &publishers, dtype);
        }
    }
}

#[test]
#[ignore = "takes minutes"]
fn every_fusion_agrees_with_the_oracle_in_full() {
    // In the fixtures' sizes, so that the tests share shaders.
    for (name, options) in [
        ("mobilenet_v1", "1x3x64x64 -> 20 w0.03"),
        ("mobilenet_v2", "2x3x64x64 -> 20 w0.05 nhwc"),
        ("mobilenet_v2", "1x3x64x64 -> 20 w0.05 f16"),
    ] {
        let (gpu, problem) = (gpu(name), format!("{name} {options}").parse::<Problem>().unwrap());
        let oracle = Oracle::new(&problem).unwrap();
        for schedule in verify::schedules(&problem, gpu.caps(), 0).unwrap() {
            let report = oracle.check(gpu, &schedule).unwrap();
            assert!(report.passes() && report.share_of_bound > 1e-4, "{problem}: {report:?}");
        }
    }
}

/// The numbers of parameters that timm 1.0 and torchvision 0.29 report, with two for each channel of a batch norm and
/// all branches; and those of some networks after folding, worked out from these: one for each channel.
#[test]
fn networks_have_the_published_numbers_of_parameters() {
    for (name, width, expected) in [
        ("mobilenet_v1", 1.0, 4_231_976),
        ("mobilenet_v1", 1.25, 6_270_840),
        ("mobilenet_v2", 0.1, 1_367_080),
        ("mobilenet_v2", 0.35, 1_677_128),
        ("mobilenet_v2", 0.5, 1_968_680),
        ("mobilenet_v2", 0.75, 2_636_424),
        ("mobilenet_v2", 1.0, 3_504_872),
        ("mobilenet_v2", 1.4, 6_108_776),
        // The weights' pages of torchvision.
        ("mobilenet_v3_large", 1.0, 5_483_032),
        ("mobilenet_v3_small", 1.0, 2_542_856),
        ("mnasnet1_0", 1.0, 4_383_312),
        ("efficientnet_b0", 1.0, 5_288_548),
        ("resnet18", 1.0, 11_689_512),
        ("resnet34", 1.0, 21_797_672),
        ("resnet50", 1.0, 25_557_032),
    ] {
        let network = build(name, width, 1000).unwrap();
        assert_eq!(network.parameters(), expected, "{name} {width}");
        assert_eq!(network.timm.len(), network.chain.convolutions().count());
        // A batch norm's two for each channel are one bias.
        let normed = network.chain.convolutions().zip(&network.timm).filter(|(_, names)| names.norm.is_some());
        let folded: u64 = normed.map(|((_, conv), _)| u64::from(conv.out_channels)).sum();
        let cost = gpuconv::cost::chain(&network.chain, [1, 3, 64, 64]).unwrap();
        assert_eq!(cost.params, expected - folded, "{name} {width}");
    }
    // Millions, as papers and model cards give them: timm's for training, and after the branches are folded.
    for (name, published, folded) in [
        ("mobilenetv4_conv_small", 3.8, 3.8),
        ("mobilenetv4_conv_medium", 9.7, 9.7),
        ("efficientnet_lite0", 4.7, 4.6),
        ("mobileone_s0", 5.3, 2.1),
        ("repvgg_a0", 9.1, 8.3),
    ] {
        let network = build(name, 1.0, 1000).unwrap();
        let cost = gpuconv::cost::chain(&network.chain, [1, 3, 224, 224]).unwrap();
        let millions = [network.parameters(), cost.params].map(|count| (count as f64 / 1e5).round() / 10.0);
        assert_eq!(millions, [published, folded], "{name}");
    }
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY, 17.0] {
        assert!(matches!(mobilenet_v1(width, 10), Err(Error::Width { .. })), "{width}");
        assert!(matches!(mobilenet_v2(width, 10), Err(Error::Width { .. })), "{width}");
    }
}

/// Resident memory of this process in bytes, if the system reports it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Asserts that logits are the same every time, in four threads that share a device and a layer. Returns how many bytes
/// memory grew by after the first tenth.
fn inferences_are_steady(count: usize) -> u64 {
    let reference = Reference::new(&fixtures(), "mobilenet_v2", "timm");
    let weights = reference.network.weights(&read(&fixtures(), "mobilenet_v2.timm")).unwrap();
    let layer = reference.layer(&weights, Fusion::Auto, DType::F32);
    let infer = || {
        let logits =
            reference.gpu().download(&layer.forward(&reference.upload(1, Layout::Nchw, DType::F32)).unwrap()).unwrap();
        logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let first = infer();
    let from_four_threads = |count: usize| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..count / 4).for_each(|_| assert_eq!(infer(), first)));
            }
        });
    };
    from_four_threads(count / 10);
    let before = resident();
    from_four_threads(count - count / 10);
    before.zip(resident()).map_or(0, |(before, after)| after.saturating_sub(before))
}

#[test]
#[ignore = "takes minutes"]
fn forty_inferences_are_the_same_in_full() {
    // Memory is not checked here, because other tests run at the same time.
    inferences_are_steady(40);
}

#[test]
#[ignore = "measures the memory of the process, so it must run alone"]
fn a_thousand_inferences_are_the_same_and_leak_no_memory() {
    let grown = inferences_are_steady(1000);
    println!("memory grew by {grown} bytes");
    assert!(grown < 4 << 20, "memory grew by {grown} bytes");
}
