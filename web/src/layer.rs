//! Layers and networks.

use std::rc::Rc;

use gpuconv::nets::{self, Network as Net};
use gpuconv::{Chain, Inputs, Layer as Inner, OwnedWeights, Weights};
use js_sys::{Array, ArrayBuffer, Float32Array, Promise, Uint8Array};
use wasm_bindgen::prelude::*;

use crate::GpuConv;
use crate::js::{failed, json, promise, refused};
use crate::options::{Options, dtype, layout};
use crate::tensor::{Tensor, extents, shape};

/// A chain of convolutions with its weights. It takes inputs of any batch, height and width, in either layout.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Layer {
    gpu: GpuConv,
    layer: Rc<Inner>,
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
    /// Runs the layer, on an input and on the residual that it adds, if it adds one. The output stays on the GPU and has the
    /// input's layout. The first input of a size compiles.
    #[wasm_bindgen(unchecked_return_type = "Promise<Tensor>")]
    pub fn forward(&self, input: &Tensor, residual: Option<AnyTensor>) -> Promise {
        let (this, input) = (self.clone(), input.clone());
        let residual = residual.map(|tensor| tensor.share()).transpose();
        promise(async move {
            let residual = residual?;
            let input = input.made().await?;
            let residual = match &residual {
                Some(tensor) => Some(tensor.made().await?),
                None => None,
            };
            let inputs = Inputs { input: &input, residual: residual.as_ref(), scale: None };
            let output = this.layer.forward_async(inputs).await.map_err(failed)?;
            Ok(Tensor::of(&this.gpu, output, true))
        })
    }

    /// The shape of the output for an input's.
    #[wasm_bindgen(js_name = outputShape, unchecked_return_type = "Shape")]
    pub fn output_shape(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Shape")] input: JsValue,
    ) -> Result<Array, JsValue> {
        Ok(extents(self.layer.output_shape(shape(&input)?).map_err(failed)?))
    }

    /// Compiles what inputs of a size need.
    #[wasm_bindgen(js_name = warmUp, unchecked_return_type = "Promise<void>")]
    pub fn warm_up(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Shape")] input: JsValue,
        #[wasm_bindgen(unchecked_param_type = "Layout | undefined")] order: JsValue,
    ) -> Promise {
        let this = self.clone();
        promise(async move {
            let (input, layout) = (shape(&input)?, layout(&order)?);
            this.layer.schedule_async(input, layout).await.map(|_| JsValue::UNDEFINED).map_err(failed)
        })
    }
}

impl Layer {
    pub fn new(gpu: &GpuConv, chain: &Chain, weights: &[Weights<'_>]) -> Result<Self, JsValue> {
        let layer = gpu.gpu.chain(chain, weights).map_err(failed)?;
        Ok(Self { gpu: gpu.clone(), layer: Rc::new(layer) })
    }
}

/// A MobileNet with its weights.
#[wasm_bindgen]
pub struct Network {
    network: Net,
    layer: Layer,
}

#[wasm_bindgen]
impl Network {
    /// What computes it: from images of three channels to logits.
    #[wasm_bindgen(getter)]
    pub fn layer(&self) -> Layer {
        self.layer.clone()
    }

    /// The number of logits.
    #[wasm_bindgen(getter)]
    pub fn classes(&self) -> u32 {
        self.network.classes
    }

    /// The values that the network takes for pictures, NCHW, of bytes as an `ImageData` has them: four a pixel.
    pub fn pixels(&self, rgba: &[u8], width: u32, height: u32) -> Float32Array {
        let rgb: Vec<_> = rgba.chunks_exact(4).flat_map(|pixel| pixel[..3].iter().copied()).collect();
        Float32Array::from(&self.network.normalize(&rgb, width as usize * height as usize)[..])
    }

    /// The most probable classes of an image's logits, the first first.
    #[wasm_bindgen(unchecked_return_type = "{ index: number, probability: number }[]")]
    pub fn top(&self, logits: &Float32Array, count: usize) -> JsValue {
        #[derive(serde::Serialize)]
        struct Class {
            index: usize,
            probability: f32,
        }
        let top = nets::top(&nets::softmax(&logits.to_vec()), count);
        json(&top.into_iter().map(|(index, probability)| Class { index, probability }).collect::<Vec<_>>())
    }
}

impl Network {
    /// A network with the weights of a file.
    pub fn open(gpu: &GpuConv, make: fn(f64, u32) -> gpuconv::Result<Net>, file: JsValue, options: JsValue) -> Promise {
        let gpu = gpu.clone();
        promise(async move {
            let options = Options::of("a network", &options, &["width", "classes", "dtype"])?;
            let (width, classes) = (options.float("width", 1.0)?, options.number("classes", Some(1000))?);
            let mut network = make(width, classes).map_err(failed)?;
            network.chain = network.chain.with_dtype(dtype(&options.get("dtype"))?);
            let bytes = if file.has_type::<ArrayBuffer>() || file.has_type::<Uint8Array>() {
                Uint8Array::new(&file).to_vec()
            } else {
                return Err(refused("the weights must be an ArrayBuffer or a Uint8Array"));
            };
            let weights = network.weights(&bytes).map_err(failed)?;
            let weights: Vec<_> = weights.iter().map(OwnedWeights::borrow).collect();
            let layer = Layer::new(&gpu, &network.chain, &weights)?;
            Ok(Self { network, layer })
        })
    }
}
