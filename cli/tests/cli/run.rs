//! `gpuconv run`: files in, a file out.

use std::fs;
use std::path::Path;
use std::process::Output;

use gpuconv::verify::Data;
use gpuconv::{Problem, Residual};
use npyz::{Order, WriterBuilder};

use super::{command, message, stderr};

/// Writes a file of values with this shape, which are in this order.
fn save<T: npyz::AutoSerialize + Copy>(path: &Path, shape: &[u64], order: Order, values: &[T]) {
    let file = fs::File::create(path).unwrap();
    let options = npyz::WriteOptions::new().default_dtype().shape(shape).order(order).writer(file);
    let mut writer = options.begin_nd().unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
}

fn load(path: &Path) -> (Vec<u64>, Vec<f32>) {
    let file = npyz::NpyFile::new(fs::File::open(path).unwrap()).unwrap();
    assert_eq!((file.order(), file.dtype().descr().as_str()), (Order::C, "'<f4'"));
    (file.shape().to_vec(), file.into_vec().unwrap())
}

/// A folder with the files of a 2x2 convolution of the numbers 1 to 9.
pub struct Folder(tempfile::TempDir);

pub const PROBLEM: &str = "conv 1x1x3x3 -> 1 k2 p1,0,0,0";

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let input: Vec<f32> = (1..=9).map(|value| value as f32).collect();
        save(folder.path("x.npy").as_ref(), &[1, 1, 3, 3], Order::C, &input);
        save(folder.path("w.npy").as_ref(), &[1, 1, 2, 2], Order::C, &[1.0f32, 2.0, 3.0, 4.0]);
        save(folder.path("b.npy").as_ref(), &[1], Order::C, &[0.5f32]);
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().into()
    }

    /// Calls `run`. Words that end in `.npy` are files of this folder.
    pub fn run(&self, problem: &str, options: &str) -> Output {
        let file = |word: &str| if word.ends_with(".npy") { self.path(word) } else { word.into() };
        let options: Vec<String> = options.split(' ').map(file).collect();
        command(&["run", problem]).args(options).output().unwrap()
    }

    /// The message of a `run` that must fail and leave no output.
    fn failure(&self, problem: &str, options: &str) -> String {
        let message = message(&self.run(problem, &format!("{options} --output y.npy")), 2);
        let names: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_str().unwrap().starts_with("y.npy")), "{names:?}");
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    }
}

#[test]
fn run_gives_the_values_worked_out_by_hand() {
    let folder = Folder::new();
    // An existing output is replaced, and no temporary file remains.
    fs::write(folder.path("y.npy"), "old").unwrap();
    let output = folder.run(PROBLEM, "--input x.npy --weight w.npy --bias b.npy --output y.npy --kernel direct");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let expected = (vec![1, 1, 3, 2], vec![11.5, 18.5, 37.5, 47.5, 67.5, 77.5]);
    assert_eq!(load(folder.path("y.npy").as_ref()), expected);
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 4);
}

/// Files of both types are read for problems of both, and the output is of the problem's.
#[test]
fn run_in_half_precision() {
    let folder = Folder::new();
    // 1 to 9 in float16 as NumPy writes them, big-endian.
    let mut file = fs::read(folder.path("x.npy")).unwrap();
    let start = file.len() - 36;
    let header = String::from_utf8_lossy(&file[10..start]).replace("<f4", ">f2");
    file.splice(10.., header.into_bytes());
    file.extend(
        [0x3C00u16, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700, 0x4800, 0x4880]
            .map(u16::to_be_bytes)
            .as_flattened(),
    );
    fs::write(folder.path("half.npy"), file).unwrap();
    let options = "--weight w.npy --bias b.npy --output y.npy --kernel direct --input";
    for input in ["x.npy", "half.npy"] {
        let output = folder.run(&format!("{PROBLEM} f16"), &format!("{options} {input}"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let file = fs::read(folder.path("y.npy")).unwrap();
        let (header, values) = file.split_at(file.len() - 12);
        assert!(
            String::from_utf8_lossy(header).contains("'descr': '<f2', 'fortran_order': False, 'shape': (1, 1, 3, 2)")
        );
        // 11.5, 18.5, 37.5, 47.5, 67.5, 77.5.
        assert_eq!(values, [0x49C0u16, 0x4CA0, 0x50B0, 0x51F0, 0x5438, 0x54D8].map(u16::to_le_bytes).as_flattened());
    }
    let output = folder.run(PROBLEM, &format!("{options} half.npy"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(load(folder.path("y.npy").as_ref()).1, [11.5, 18.5, 37.5, 47.5, 67.5, 77.5]);
}

#[test]
fn run_agrees_with_the_oracle() {
    let line = "separable 2x4x5x6 -> 8 k3 s2x1 p1 relu6 nhwc";
    let problem: Problem = line.parse().unwrap();
    // `--residual` adds a residual even if the problem does not contain the word.
    let problem = problem.with_residual(Residual::BeforeActivation);
    let (chain, output_shape) = (problem.chain(), problem.output().unwrap());
    let data = Data::random(line, &chain, problem.input).unwrap();
    let folder = Folder::new();
    let file = |name: &str, shape: [u32; 4], values: &[f32]| {
        save(folder.path(name).as_ref(), &shape.map(u64::from), Order::C, values);
    };
    file("x.npy", problem.input.into(), &data.input);
    file("r.npy", output_shape.into(), data.residual.as_ref().unwrap());
    let [(depthwise, depthwise_bias), (pointwise, pointwise_bias)] = &data.weights[..] else { panic!("two links") };
    file("w.npy", [4, 1, 3, 3], depthwise);
    save(folder.path("b.npy").as_ref(), &[4], Order::C, depthwise_bias.as_ref().unwrap());
    save(folder.path("pb.npy").as_ref(), &[8], Order::C, pointwise_bias.as_ref().unwrap());
    // The order of numpy.asfortranarray: output channels next to each other.
    let columns: Vec<f32> = (0..4).flat_map(|ic| (0..8).map(move |oc| pointwise[oc * 4 + ic])).collect();
    save(folder.path("pw.npy").as_ref(), &[8, 4, 1, 1], Order::Fortran, &columns);

    let output = folder.run(
        line,
        "--input x.npy --weight w.npy --bias b.npy --pointwise-weight pw.npy --pointwise-bias pb.npy \
         --residual r.npy --output y.npy",
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (shape, values) = load(folder.path("y.npy").as_ref());
    assert_eq!(shape, <[u32; 4]>::from(output_shape).map(u64::from));
    let answer = gpuconv::oracle::run(&chain, &data.input, problem.input, &data.weights(), data.residual.as_deref());
    for (value, expected) in values.iter().zip(answer.unwrap().values) {
        assert!((f64::from(*value) - expected).abs() < 1e-5, "{value} is not {expected}");
    }
}

#[test]
fn run_names_the_wrong_file() {
    let folder = Folder::new();
    save(folder.path("double.npy").as_ref(), &[1, 1, 3, 3], Order::C, &[0f64; 9]);
    save(folder.path("flat.npy").as_ref(), &[9], Order::C, &[0f32; 9]);
    fs::write(folder.path("text.npy"), "1 2 3").unwrap();
    let whole = fs::read(folder.path("x.npy")).unwrap();
    fs::write(folder.path("short.npy"), &whole[..whole.len() - 4]).unwrap();
    for (options, parts) in [
        ("--input none.npy --weight w.npy --bias b.npy", ["none.npy", "No such file"]),
        ("--input text.npy --weight w.npy --bias b.npy", ["text.npy", "NPY"]),
        ("--input short.npy --weight w.npy --bias b.npy", ["short.npy", "ends before"]),
        ("--input double.npy --weight w.npy --bias b.npy", ["double.npy", "float16 ('<f2'), but is '<f8'"]),
        ("--input flat.npy --weight w.npy --bias b.npy", ["flat.npy", "input must be 1x1x3x3, but is 9"]),
        ("--input x.npy --weight x.npy --bias b.npy", ["x.npy", "weight must be 1x1x2x2, but is 1x1x3x3"]),
        ("--input x.npy --weight w.npy --bias w.npy", ["w.npy", "bias must be 1, but is 1x1x2x2"]),
        ("--input x.npy --weight w.npy --bias b.npy --residual x.npy", ["x.npy", "residual must be 1x1x3x2"]),
        ("--input x.npy --weight w.npy", ["--bias", "`nobias`"]),
        ("--input x.npy --weight w.npy --bias b.npy --pointwise-weight w.npy", ["--pointwise-weight", "separable"]),
        ("--input x.npy --weight w.npy --bias b.npy --kernel fastest", ["`fastest`", "direct"]),
    ] {
        let message = folder.failure(PROBLEM, options);
        assert!(parts.iter().all(|part| message.contains(part)), "{options}: {message}");
    }
}

#[test]
fn run_needs_the_files_that_the_problem_implies() {
    let folder = Folder::new();
    for (problem, options, part) in [
        ("conv 1x1x3x3 -> 1 k2 nobias", "--input x.npy --weight w.npy --bias b.npy", "--bias is given"),
        ("conv 1x1x3x3 -> 1 k2 residual", "--input x.npy --weight w.npy --bias b.npy", "--residual"),
        ("conv 1x1x3x3 -> 1 k2 prelu", "--input x.npy --weight w.npy --bias b.npy", "remove the word `prelu`"),
        ("separable 1x1x3x3 -> 1 k2", "--input x.npy --weight w.npy --bias b.npy", "--pointwise-weight"),
        (
            "separable 1x1x3x3 -> 1 k2",
            "--input x.npy --weight w.npy --bias b.npy --pointwise-weight w.npy",
            "--pointwise-bias",
        ),
    ] {
        let message = folder.failure(problem, options);
        assert!(message.contains(part), "{problem}: {message}");
    }
    // A missing folder for the output is also a wrong call, although it is noticed only at the end.
    let options = "--input x.npy --weight w.npy --bias b.npy --kernel direct --output none/y.npy";
    let output = folder.run(PROBLEM, options);
    let message = message(&output, 2);
    assert!(message.contains("none/y.npy: ") && !message.contains("none/.tmp"), "{message}");
}

/// A file of the library's fixtures.
fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    path.to_str().unwrap().into()
}

/// The values of a tensor of a safetensors file.
fn tensor(file: &[u8], name: &str) -> Vec<f32> {
    let (length, rest) = file.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let [start, end] = [0, 1].map(|end| header[name]["data_offsets"][end].as_u64().unwrap() as usize);
    data[start..end].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn run_takes_a_network_from_a_file_of_weights() {
    let folder = Folder::new();
    let images = gpuconv::internals::random::uniform("mobilenet_v1/x", 3 * 112 * 112, 2.0);
    save(folder.path("images.npy").as_ref(), &[1, 3, 112, 112], Order::C, &images);
    let weights = fixture("mobilenet_v1.timm.safetensors");
    let options = format!("--input images.npy --weights {weights} --kernel direct");
    let output = folder.run("mobilenet_v1 1x3x112x112 -> 20 w0.03", &format!("{options} --output y.npy"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (shape, logits) = load(folder.path("y.npy").as_ref());
    assert_eq!(shape, [1, 20, 1, 1]);
    let expected = tensor(&fs::read(fixture("mobilenet_v1.answer.safetensors")).unwrap(), "logits.timm");
    for (logit, expected) in logits.iter().zip(&expected) {
        assert!((logit - expected).abs() < 1e-3, "{logit} is not {expected}");
    }
    fs::remove_file(folder.path("y.npy")).unwrap();

    // The name alone is of the published width, for images of the input's size.
    let message = folder.failure("mobilenet_v1", &options);
    assert!(message.contains("`conv_stem.weight` must be [32, 3, 3, 3], but is [8, 3, 3, 3]"), "{message}");
    let other = folder.failure("mobilenet_v2 1x3x112x112 -> 20 w0.03", &options);
    assert!(
        other.contains("the file has no tensor `blocks.0.0.conv_pw.weight`") || other.contains("must be"),
        "{other}"
    );
    let flat = folder.failure("mobilenet_v1", &options.replace("images.npy", "b.npy"));
    assert!(flat.contains("the input's shape is NxCxHxW, not `1`") || flat.contains("must"), "{flat}");
    let options = "--input images.npy --weights x.npy";
    assert!(folder.failure("mobilenet_v1", options).contains("x.npy: not a safetensors file"));
    for (problem, options, part) in [
        ("mobilenet_v1", "--input none.npy --weights w.npy", "none.npy: "),
        ("mobilenet_v1", "--input images.npy --weights w.npy --pointwise-weight w.npy", "--pointwise-weight"),
        ("mobilenet_v1 1x3x112x112", "--input images.npy", "give --weights"),
        (PROBLEM, "--input x.npy", "give --weight"),
        (PROBLEM, "--input x.npy --weights w.npy", "--weight"),
        ("pool 1x1x3x3", "--input x.npy", "convolutions and networks"),
    ] {
        let message = folder.failure(problem, options);
        assert!(message.contains(part), "{problem}: {message}");
    }
}
