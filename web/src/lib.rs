//! gpuconv for JavaScript: the classes of the npm package `gpuconv`.
//!
//! Waiting is a promise, a failure an `Error` with the library's words. `types.ts` has the types of options and
//! results.

#![cfg(target_arch = "wasm32")]

mod bench;
mod chain;
mod check;
mod js;
mod layer;
mod options;
mod plan;
mod tensor;
mod tune;
// The command line's, since both count checks and times in the same way.
#[path = "../../cli/src/verify/rows.rs"]
mod rows;
#[path = "../../cli/src/spread.rs"]
mod spread;

use std::rc::Rc;

use gpuconv::{Choice, GpuConv as Gpu, Problem};
use js_sys::{Float32Array, Promise};
use wasm_bindgen::prelude::*;

use js::{failed, json, promise};
use layer::{Layer, Network};
use options::Options;
use tensor::{Tensor, shape};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.ts");

/// A GPU to convolve on: a `GPUDevice`, and what its layers share.
#[wasm_bindgen]
#[derive(Clone)]
pub struct GpuConv(Rc<Held>);

/// A device, destroyed with the last handle that needs it, unless the page made it.
struct Held {
    gpu: Gpu,
    is_own: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_own {
            self.gpu.device().destroy();
        }
    }
}

impl GpuConv {
    fn new(gpu: Gpu, is_own: bool) -> Self {
        Self(Rc::new(Held { gpu, is_own }))
    }

    fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }
}

#[wasm_bindgen]
impl GpuConv {
    /// A new device of the adapter that the browser prefers for speed, with all its limits.
    #[wasm_bindgen(unchecked_return_type = "Promise<GpuConv>")]
    pub fn create() -> Promise {
        promise(async { Ok(Self::new(Gpu::new_async().await.map_err(failed)?, true)) })
    }

    /// The page's own device. It is not destroyed with the last handle. Ask for the features `subgroups`,
    /// `timestamp-query` and `shader-f16` where the adapter has them, and for its limits: what the device lacks,
    /// kernels do without.
    #[wasm_bindgen(js_name = fromDevice, unchecked_return_type = "Promise<GpuConv>")]
    pub fn from_device(#[wasm_bindgen(unchecked_param_type = "GPUDevice")] device: JsValue) -> Promise {
        promise(async move { Ok(Self::new(Gpu::with_webgpu_device(&device).await.map_err(failed)?, false)) })
    }

    /// The device.
    #[wasm_bindgen(getter, unchecked_return_type = "GPUDevice")]
    pub fn device(&self) -> JsValue {
        self.gpu().device().as_webgpu().map_or(JsValue::UNDEFINED, JsValue::from)
    }

    /// What the device is.
    #[wasm_bindgen(getter, unchecked_return_type = "DeviceInfo")]
    pub fn info(&self) -> JsValue {
        json(&plan::Info::of(self.gpu()))
    }

    /// A tensor with these values, which are in the order of the layout, and are rounded if it is of f16. That there is
    /// no memory for it shows when it is used.
    pub fn upload(
        &self,
        #[wasm_bindgen(unchecked_param_type = "Float32Array")] values: JsValue,
        #[wasm_bindgen(unchecked_param_type = "Shape")] shape: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "Layout")] layout: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "DType")] dtype: JsValue,
    ) -> Result<Tensor, JsValue> {
        let (layout, dtype) = (options::layout(&layout)?, options::dtype(&dtype)?);
        Tensor::upload(self, js::floats(&values, "the values")?, self::shape(&shape)?, layout, dtype)
    }

    /// A tensor in a buffer of the device that the page made, with the usage `STORAGE`; `COPY_SRC` as well to be
    /// downloaded, `COPY_DST` to be written.
    pub fn tensor(
        &self,
        #[wasm_bindgen(unchecked_param_type = "GPUBuffer")] buffer: JsValue,
        #[wasm_bindgen(unchecked_param_type = "Shape")] shape: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "BufferOptions")] options: JsValue,
    ) -> Result<Tensor, JsValue> {
        Tensor::of_buffer(self, &buffer, self::shape(&shape)?, &options)
    }

    /// Writes values into a tensor. What is submitted later reads them: await a `forward` that is to read the values
    /// before, since it is submitted only by then.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn write(
        &self,
        tensor: &Tensor,
        #[wasm_bindgen(unchecked_param_type = "Float32Array")] values: JsValue,
    ) -> Promise {
        // The caller may change the array later.
        let (gpu, tensor, values) = (self.clone(), tensor.clone(), js::floats(&values, "the values"));
        promise(async move {
            gpu.gpu().write_async(&tensor.made().await?, &values?).await.map_err(failed)?;
            Ok(JsValue::UNDEFINED)
        })
    }

    /// The values of a tensor, in its layout; those of f16 as they are, which f32 has too.
    #[wasm_bindgen(unchecked_return_type = "Promise<Float32Array>")]
    pub fn download(&self, tensor: &Tensor) -> Promise {
        let (gpu, tensor) = (self.clone(), tensor.clone());
        promise(async move {
            let values = gpu.gpu().download_async(&tensor.made().await?).await.map_err(failed)?;
            Ok(Float32Array::from(&values[..]))
        })
    }

    /// A convolution with its epilogue. It has a bias if the weights have one.
    #[wasm_bindgen(unchecked_return_type = "Promise<Layer>")]
    pub fn conv2d(
        &self,
        #[wasm_bindgen(unchecked_param_type = "ConvOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "ConvWeights")] weights: JsValue,
    ) -> Promise {
        Layer::made(self, options::conv(&options, &weights, options::CONV))
    }

    /// A depthwise convolution. There are as many `outChannels` as channels, unless they are given.
    #[wasm_bindgen(unchecked_return_type = "Promise<Layer>")]
    pub fn depthwise(
        &self,
        #[wasm_bindgen(unchecked_param_type = "DepthwiseOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "ConvWeights")] weights: JsValue,
    ) -> Promise {
        Layer::made(self, options::conv(&options, &weights, options::DEPTHWISE))
    }

    /// A pointwise convolution: one with a 1x1 kernel.
    #[wasm_bindgen(unchecked_return_type = "Promise<Layer>")]
    pub fn pointwise(
        &self,
        #[wasm_bindgen(unchecked_param_type = "PointwiseOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "ConvWeights")] weights: JsValue,
    ) -> Promise {
        Layer::made(self, options::conv(&options, &weights, options::POINTWISE))
    }

    /// A depthwise-separable convolution: depthwise, activation, pointwise, activation. Each half has a bias if the
    /// weights have one for it.
    #[wasm_bindgen(unchecked_return_type = "Promise<Layer>")]
    pub fn separable(
        &self,
        #[wasm_bindgen(unchecked_param_type = "SeparableOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_param_type = "SeparableWeights")] weights: JsValue,
    ) -> Promise {
        Layer::made(self, options::separable(&options, &weights))
    }

    /// What a problem line says, or several in a row, with the weights of each of their convolutions, in order: two for
    /// a gate, first the squeeze's.
    #[wasm_bindgen(unchecked_return_type = "Promise<Layer>")]
    pub fn chain(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string | (string | ChainStep)[]")] problem: JsValue,
        #[wasm_bindgen(unchecked_param_type = "ConvWeights[]")] weights: JsValue,
    ) -> Promise {
        let read = || Ok((chain::chain(&problem)?, options::list_of_weights(&weights)?));
        Layer::made(self, read())
    }

    /// A network of `networks()` with the weights of a safetensors file, under torchvision's, timm's or its authors' names: the one
    /// of the name that the options have, or else the one that has the file's tensors. TensorFlow's variants (timm's
    /// `tf_` names) have the tensors of others: give the name of one, and the size of your images.
    #[wasm_bindgen(unchecked_return_type = "Promise<Network>")]
    pub fn network(
        &self,
        #[wasm_bindgen(unchecked_param_type = "ArrayBuffer | Uint8Array")] file: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "NetworkOptions & { name?: string }")] options: JsValue,
    ) -> Promise {
        Network::open(self, file, None, options)
    }

    /// MobileNetV1 with the weights of a safetensors file, under timm's names.
    #[wasm_bindgen(js_name = mobilenetV1, unchecked_return_type = "Promise<Network>")]
    pub fn mobilenet_v1(
        &self,
        #[wasm_bindgen(unchecked_param_type = "ArrayBuffer | Uint8Array")] file: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "NetworkOptions")] options: JsValue,
    ) -> Promise {
        Network::open(self, file, Some("mobilenet_v1"), options)
    }

    /// MobileNetV2 with the weights of a safetensors file, under timm's or torchvision's names.
    #[wasm_bindgen(js_name = mobilenetV2, unchecked_return_type = "Promise<Network>")]
    pub fn mobilenet_v2(
        &self,
        #[wasm_bindgen(unchecked_param_type = "ArrayBuffer | Uint8Array")] file: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "NetworkOptions")] options: JsValue,
    ) -> Promise {
        Network::open(self, file, Some("mobilenet_v2"), options)
    }

    /// Which kernels would compute a problem here, and why no others.
    #[wasm_bindgen(unchecked_return_type = "Plan")]
    pub fn plan(&self, #[wasm_bindgen(unchecked_param_type = "string")] problem: JsValue) -> Result<JsValue, JsValue> {
        let problem: Problem = js::string(&problem, "a problem")?.parse().map_err(failed)?;
        let (chain, choice) = (problem.chain(), Choice::Auto);
        let division = self.gpu().divide(&chain, problem.input, problem.layout, &choice).map_err(failed)?;
        Ok(json(&plan::Plan::of(&problem, &division).map_err(failed)?))
    }

    /// Checks every kernel against the oracle on this device: what `gpuconv verify` does.
    #[wasm_bindgen(unchecked_return_type = "Promise<Verified>")]
    pub fn verify(&self, #[wasm_bindgen(unchecked_optional_param_type = "VerifyOptions")] options: JsValue) -> Promise {
        let gpu = self.clone();
        promise(async move {
            let options = Options::of("verify", &options, &["problems", "progress", "signal"])?;
            js::stoppable(options.signal()?, check::verify(gpu.gpu(), &options)).await
        })
    }

    /// How long a problem takes from typed array to typed array, with data drawn from its line: what `gpuconv bench`
    /// does.
    #[wasm_bindgen(unchecked_return_type = "Promise<Bench>")]
    pub fn bench(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string")] problem: JsValue,
        seconds: f64,
        #[wasm_bindgen(unchecked_optional_param_type = "MeasureOptions")] options: JsValue,
    ) -> Promise {
        let gpu = self.clone();
        promise(async move {
            let options = Options::of("bench", &options, &["fusion", "signal"])?;
            let work = async {
                bench::bench(gpu.gpu(), &js::string(&problem, "a problem")?, seconds, &options)
                    .await
                    .map(|bench| json(&bench))
            };
            js::stoppable(options.signal()?, work).await
        })
    }

    /// The seconds that each step of a problem takes on the device, and what it does in them.
    #[wasm_bindgen(unchecked_return_type = "Promise<MeasuredStep[]>")]
    pub fn measure(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string")] problem: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "MeasureOptions")] options: JsValue,
    ) -> Promise {
        let gpu = self.clone();
        promise(async move {
            let options = Options::of("measure", &options, &["fusion", "signal"])?;
            js::stoppable(options.signal()?, bench::steps(gpu.gpu(), &js::string(&problem, "a problem")?, &options))
                .await
        })
    }

    /// Measures what could compute a problem, checks it, and goes by that from now on: what `gpuconv tune` does.
    /// `tuning` has it.
    #[wasm_bindgen(unchecked_return_type = "Promise<TunedRun[]>")]
    pub fn tune(
        &self,
        #[wasm_bindgen(unchecked_param_type = "string")] problem: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "TuneOptions")] options: JsValue,
    ) -> Promise {
        let gpu = self.clone();
        promise(async move {
            let options = Options::of("tune", &options, &["seconds", "progress", "signal"])?;
            js::stoppable(options.signal()?, tune::tune(gpu.gpu(), &js::string(&problem, "a problem")?, &options)).await
        })
    }

    /// Measures the device's rates, in about a second, and plans by them from now on.
    #[wasm_bindgen(unchecked_return_type = "Promise<Rates>")]
    pub fn probe(&self) -> Promise {
        let gpu = self.clone();
        promise(async move {
            let rates = gpuconv::probe::probe_async(gpu.gpu()).await.map_err(failed)?;
            let mut profile = (*gpu.gpu().profile()).clone();
            profile.rates = Some(rates);
            gpu.gpu().set_profile(profile);
            Ok(json(&rates))
        })
    }

    /// What was measured on this device, as JSON: for `useTuning`, and for the command line.
    #[wasm_bindgen(getter)]
    pub fn tuning(&self) -> String {
        gpuconv::Tuning::new(self.gpu(), (*self.gpu().profile()).clone()).to_json()
    }

    /// Goes by what a tuning knows of this device and browser. Whether that is anything.
    #[wasm_bindgen(js_name = useTuning)]
    pub fn use_tuning(&self, #[wasm_bindgen(unchecked_param_type = "string")] json: JsValue) -> Result<bool, JsValue> {
        let json = js::string(&json, "a tuning")?;
        let tuning = gpuconv::Tuning::from_json(json.as_bytes()).map_err(failed)?;
        Ok(self.gpu().use_tuning(&tuning))
    }

    /// Waits until all submitted work is done.
    #[wasm_bindgen(unchecked_return_type = "Promise<void>")]
    pub fn wait(&self) -> Promise {
        let gpu = self.clone();
        promise(async move { gpu.gpu().wait_async().await.map(|()| JsValue::UNDEFINED).map_err(failed) })
    }
}

/// The version of the package and of the library.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// The lines of the table of cases that `verify` checks.
#[wasm_bindgen]
pub fn cases() -> Vec<String> {
    gpuconv::verify::lines().map(String::from).collect()
}

/// The names of the networks that `network` takes weights for.
#[wasm_bindgen]
pub fn networks() -> Vec<String> {
    layer::names().into_iter().map(String::from).collect()
}

/// The probability of each class, of a network's logits.
#[wasm_bindgen]
pub fn softmax(
    #[wasm_bindgen(unchecked_param_type = "Float32Array")] logits: JsValue,
) -> Result<Float32Array, JsValue> {
    let logits = js::floats(&logits, "the logits")?;
    Ok(Float32Array::from(&gpuconv::nets::softmax(&logits)[..]))
}
