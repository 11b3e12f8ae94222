//! Layers and networks.

use std::rc::Rc;

use gpuconv::nets::{self, Network as Net};
use gpuconv::{Chain, Error, Inputs, Layer as Inner, OwnedWeights};
use js_sys::{Array, Float32Array, Promise};
use wasm_bindgen::prelude::*;

use crate::GpuConv;
use crate::js::{bytes, failed, floats, json, promise, refused};
use crate::options::{Options, dtype, layout, text, whole};
use crate::tensor::{Tensor, extents, shape};

/// A chain of convolutions with its weights. It takes inputs of any batch, height and width, in either layout.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Layer(Rc<Held>);

/// A layer, whose weights are destroyed with the last handle that needs it.
struct Held {
    layer: Inner,
    gpu: GpuConv,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.layer.destroy_weights();
    }
}

#[wasm_bindgen]
extern "C" {
    /// A `Tensor` that may be missing.
    #[wasm_bindgen(typescript_type = "Tensor")]
    pub type AnyTensor;

    #[wasm_bindgen(method, structural, catch)]
    fn share(this: &AnyTensor) -> Result<Tensor, JsValue>;
}

#[wasm_bindgen]
impl Layer {
    /// Runs the layer, on an input, on the residual that it adds, if it adds one, and on the scale by which it
    /// multiplies the input, if it is scaled: a value for each image and channel. The output stays on the GPU and has
    /// the input's layout. The first input of a size compiles.
    #[wasm_bindgen(unchecked_return_type = "Promise<Tensor>")]
    pub fn forward(&self, input: &Tensor, residual: Option<AnyTensor>, scale: Option<AnyTensor>) -> Promise {
        let (this, input) = (self.clone(), input.clone());
        let others = [("the residual", residual), ("the scale", scale)].map(|(what, tensor)| {
            let shared = tensor.map(|tensor| tensor.share().map_err(|_| not_a_tensor(what, &tensor)));
            shared.transpose()
        });
        promise(async move {
            let [residual, scale] = others;
            // Handles until the end: the caller may free its own meanwhile.
            let others = [residual?, scale?];
            let made_input = input.made().await?;
            let mut made = [None, None];
            for (made, tensor) in made.iter_mut().zip(&others) {
                if let Some(tensor) = tensor {
                    *made = Some(tensor.made().await?);
                }
            }
            let [residual, scale] = &made;
            let inputs = Inputs { input: &made_input, residual: residual.as_ref(), scale: scale.as_ref() };
            let output = this.0.layer.forward_async(inputs).await.map_err(failed);
            drop((input, others));
            Ok(Tensor::of(&this.0.gpu, output?, true))
        })
    }

    /// The shape of the output for an input's.
    #[wasm_bindgen(js_name = outputShape, unchecked_return_type = "Shape")]
    pub fn output_shape(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Shape")] input: JsValue,
    ) -> Result<Array, JsValue> {
        Ok(extents(self.0.layer.output_shape(shape(&input)?).map_err(failed)?))
    }

    /// Compiles what inputs of a size need.
    #[wasm_bindgen(js_name = warmUp, unchecked_return_type = "Promise<void>")]
    pub fn warm_up(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Shape")] input: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "Layout")] order: JsValue,
    ) -> Promise {
        let this = self.clone();
        promise(async move {
            let (input, layout) = (shape(&input)?, layout(&order)?);
            this.0.layer.schedule_async(input, layout).await.map(|_| JsValue::UNDEFINED).map_err(failed)
        })
    }
}

impl Layer {
    fn new(gpu: &GpuConv, chain: &Chain, weights: &[OwnedWeights]) -> Result<Self, JsValue> {
        let weights: Vec<_> = weights.iter().map(OwnedWeights::borrow).collect();
        let layer = gpu.gpu().chain(chain, &weights).map_err(failed)?;
        Ok(Self(Rc::new(Held { layer, gpu: gpu.clone() })))
    }

    /// The layer of a chain and its weights, which were read before the call returned: the caller may change its arrays
    /// then.
    pub fn made(gpu: &GpuConv, read: Result<(Chain, Vec<OwnedWeights>), JsValue>) -> Promise {
        let gpu = gpu.clone();
        promise(async move {
            let (chain, weights) = read?;
            Self::new(&gpu, &chain, &weights)
        })
    }
}

/// A network with its weights.
#[wasm_bindgen]
pub struct Network {
    network: Net,
    layer: Layer,
}

#[wasm_bindgen]
impl Network {
    /// What computes it: from images of three channels to logits, or images.
    #[wasm_bindgen(getter)]
    pub fn layer(&self) -> Layer {
        self.layer.clone()
    }

    /// Its name, one of `networks()`.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.network.name.into()
    }

    /// What it makes of an image.
    #[wasm_bindgen(getter, unchecked_return_type = "NetworkTask")]
    pub fn task(&self) -> String {
        self.network.task.to_string()
    }

    /// The number of logits; of channels, if images come out.
    #[wasm_bindgen(getter)]
    pub fn classes(&self) -> u32 {
        self.network.classes
    }

    /// The values that the network takes for pictures, NCHW, of bytes as an `ImageData` has them: four a pixel.
    pub fn pixels(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array | Uint8ClampedArray")] rgba: JsValue,
        #[wasm_bindgen(unchecked_param_type = "number")] width: JsValue,
        #[wasm_bindgen(unchecked_param_type = "number")] height: JsValue,
    ) -> Result<Float32Array, JsValue> {
        let bytes = bytes(&rgba, "the pixels")?;
        let extents = [&width, &height].map(|extent| whole(extent).filter(|extent| *extent > 0));
        let [Some(columns), Some(rows)] = extents else {
            let given = format!("{} and {}", text(&width), text(&height));
            return Err(refused(&format!("a picture's width and height are whole numbers above 0, not {given}")));
        };
        let (pixels, count) = (u128::from(columns) * u128::from(rows), bytes.len() as u128);
        if count == 0 || count % (4 * pixels) != 0 {
            let each = format!("pictures of {columns}x{rows} have {} bytes each", 4 * pixels);
            return Err(refused(&format!("{each}, but there are {count}")));
        }
        let rgb: Vec<_> = bytes.chunks_exact(4).flat_map(|pixel| pixel[..3].iter().copied()).collect();
        Ok(Float32Array::from(&self.network.normalize(&rgb, pixels as usize)[..]))
    }

    /// The most probable classes of an image's logits, the first first.
    #[wasm_bindgen(unchecked_return_type = "{ index: number, probability: number }[]")]
    pub fn top(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Float32Array")] logits: JsValue,
        #[wasm_bindgen(unchecked_param_type = "number")] count: JsValue,
    ) -> Result<JsValue, JsValue> {
        #[derive(serde::Serialize)]
        struct Class {
            index: usize,
            probability: f32,
        }
        let logits = floats(&logits, "the logits")?;
        let count =
            whole(&count).ok_or_else(|| refused(&format!("a count is a whole number, not {}", text(&count))))?;
        // JSON has no form for what these would give.
        if let Some(index) = logits.iter().position(|logit| logit.is_nan()) {
            return Err(refused(&format!("the logit of class {index} is not a number")));
        }
        let top = nets::top(&nets::softmax(&logits), count as usize);
        Ok(json(&top.into_iter().map(|(index, probability)| Class { index, probability }).collect::<Vec<_>>()))
    }
}

fn not_a_tensor(what: &str, value: &JsValue) -> JsValue {
    refused(&format!("{what} must be a Tensor, but is {}", text(value)))
}

impl Network {
    /// A network with the weights of a file: of this name, or else the one that has the file's tensors.
    pub fn open(gpu: &GpuConv, file: JsValue, name: Option<&str>, options: JsValue) -> Promise {
        let (gpu, wanted) = (gpu.clone(), name.map(String::from));
        // Before the call returns: the caller may change or give away its file then.
        let bytes = bytes(&file, "the weights");
        promise(async move {
            let bytes = bytes?;
            const KNOWN: [&str; 5] = ["name", "width", "classes", "dtype", "imageSize"];
            let options = Options::of("a network", &options, &KNOWN[usize::from(wanted.is_some())..])?;
            let width = options.float("width", 1.0)?;
            let classes = match options.get("classes") {
                classes if classes.is_undefined() => None,
                _ => Some(options.number("classes", None)?),
            };
            let dtype = dtype(&options.get("dtype"))?;
            let wanted = match options.get("name") {
                name if name.is_undefined() => wanted,
                name => Some(name.as_string().unwrap_or_else(|| text(&name))),
            };
            let size = match options.get("imageSize") {
                size if size.is_undefined() => None,
                _ => Some(options.extent("imageSize", None)?),
            };
            let (mut network, weights) = match wanted {
                Some(name) if is_sized(&name) && size.is_none() => {
                    let why = "where it has strides, its padding depends on the size of images";
                    return Err(refused(&format!("{name} needs the option imageSize: {why}")));
                }
                Some(name) => named(&name, width, classes, &bytes)?,
                None => of_tensors(width, classes, &bytes)?,
            };
            if let Some([rows, columns]) = size {
                let channels = network.chain.convolutions().next().map_or(COLOURS, |(_, conv)| conv.in_channels);
                network = network.sized([1, channels, rows, columns]).map_err(failed)?;
            }
            network.chain = network.chain.with_dtype(dtype);
            let layer = Layer::new(&gpu, &network.chain, &weights)?;
            Ok(Self { network, layer })
        })
    }
}

type Loaded = (Net, Vec<OwnedWeights>);

/// Channels of an image.
const COLOURS: u32 = 3;

/// Whether a network is another one for each size of images: one with TensorFlow's padding.
fn is_sized(name: &str) -> bool {
    name.starts_with("tf_")
}

/// The network of a name, with a file's weights.
fn named(name: &str, width: f64, classes: Option<u32>, file: &[u8]) -> Result<Loaded, JsValue> {
    let Some((_, task, make)) = nets::NETWORKS.iter().find(|(known, ..)| *known == name) else {
        return Err(refused(&format!("no network is called {name}; there are {}", names().join(", "))));
    };
    let network = make(width, classes.or(task.classes()).unwrap_or(COLOURS)).map_err(failed)?;
    let weights = network.weights(file).map_err(failed)?;
    Ok((network, weights))
}

/// The network that has a file's tensors, with these weights. Those with TensorFlow's padding have the tensors of others.
fn of_tensors(width: f64, classes: Option<u32>, file: &[u8]) -> Result<Loaded, JsValue> {
    let mut errors = Vec::new();
    for (name, task, make) in nets::NETWORKS.iter().filter(|(name, ..)| !is_sized(name)) {
        let network = make(width, classes.or(task.classes()).unwrap_or(COLOURS)).map_err(failed)?;
        match network.weights(file) {
            Ok(weights) => return Ok((network, weights)),
            Err(error @ Error::NotSafetensors(_)) => return Err(failed(error)),
            Err(error) => errors.push((name, error)),
        }
    }
    // A tensor that is there and has another shape says more than one that is missing.
    let is_there = |(_, error): &&(_, Error)| !matches!(error, Error::MissingTensor { .. });
    let nearest = errors.iter().find(is_there).or(errors.first());
    let why = nearest.map(|(name, error)| format!("; for {name}, {error}")).unwrap_or_default();
    let classes = classes.map(|classes| format!(" with {classes} classes")).unwrap_or_default();
    Err(refused(&format!("no network of width {width}{classes} has these tensors{why}")))
}

/// The names of the networks.
pub fn names() -> Vec<&'static str> {
    nets::NETWORKS.iter().map(|(name, ..)| *name).collect()
}
