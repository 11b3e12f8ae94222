//! WebGPU in a browser, where wgpu does not reach: what the browser says of its GPU, devices that a page made, and
//! subgroups.

use std::sync::Arc;

use futures_intrusive::channel::shared::oneshot_channel;
use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};

use crate::model::dtype::DType;
use crate::model::error::{Cause, Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::runtime::gpu::GpuConv;
use crate::runtime::tensor::Tensor;

impl GpuConv {
    /// A `GPUDevice` that JavaScript made, as [`GpuConv::with_device`] takes wgpu's. wgpu itself has no way to take
    /// one. Ask for the features `subgroups`, `timestamp-query` and `shader-f16` where the adapter has them, and for
    /// its limits.
    ///
    /// # Errors
    /// [`Error::RequestDevice`] if it is no `GPUDevice`.
    pub async fn with_webgpu_device(device: &JsValue) -> Result<Self> {
        adopt(device).await.map(|(device, queue)| Self::with_device(device, queue))
    }

    /// A tensor in a `GPUBuffer` that JavaScript made on this device, as [`Tensor::from_buffer_of`] makes one in
    /// wgpu's.
    ///
    /// # Errors
    /// As [`Tensor::from_buffer`]; [`Error::Validation`] if it is no `GPUBuffer`.
    pub fn tensor_of_webgpu_buffer(
        &self,
        buffer: &JsValue,
        offset: u64,
        shape: impl Into<Shape>,
        layout: Layout,
        dtype: DType,
    ) -> Result<Tensor> {
        Tensor::from_buffer_of(adopt_buffer(self.device(), buffer)?, offset, shape, layout, dtype)
    }
}

/// Limits that kernels ask for.
const LIMITS: [&str; 9] = [
    "maxBufferSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX",
    "maxComputeWorkgroupSizeY",
    "maxComputeWorkgroupSizeZ",
    "maxComputeWorkgroupStorageSize",
    "maxStorageBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
    "minStorageBufferOffsetAlignment",
];

/// Features that kernels use, by WebGPU's names.
const FEATURES: [&str; 3] = ["subgroups", "timestamp-query", "shader-f16"];

/// What a browser says of an adapter.
#[derive(Clone, Debug, Default)]
pub struct Adapter {
    pub vendor: String,
    pub architecture: String,
    pub description: String,
    /// Whether the browser says that it is a software device.
    pub is_fallback: bool,
    /// The smallest and the largest subgroup, if the device has subgroups.
    pub subgroup: Option<[u32; 2]>,
}

impl Adapter {
    /// What the browser says of a device's adapter.
    pub fn of(device: &wgpu::Device) -> Self {
        let Some(device) = device.as_webgpu() else { return Self::default() };
        let info = get(device, "adapterInfo");
        let text = |name| get(&info, name).as_string().unwrap_or_default();
        let size = |name| get(&info, name).as_f64().filter(|size| *size >= 1.0).map(|size| size as u32);
        let has_subgroups = has(&get(device, "features"), "subgroups");
        Self {
            vendor: text("vendor"),
            architecture: text("architecture"),
            description: text("description"),
            is_fallback: get(&info, "isFallbackAdapter").is_truthy(),
            subgroup: size("subgroupMinSize").zip(size("subgroupMaxSize")).filter(|_| has_subgroups).map(Into::into),
        }
    }

    /// Its name: the description, which browsers mostly keep to themselves, or vendor and architecture.
    pub fn name(&self) -> String {
        let words = [&self.vendor[..], &self.architecture];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        if self.description.is_empty() { words.join(" ") } else { self.description.clone() }
    }
}

/// The browser's engine, which translates shaders: times hold for it alone.
pub fn engine() -> &'static str {
    let agent = get(&navigator(), "userAgent").as_string().unwrap_or_default();
    let engines = [("Firefox/", "Firefox"), ("Chrome/", "Chromium"), ("AppleWebKit/", "WebKit"), ("Node", "Node.js")];
    engines.into_iter().find(|(word, _)| agent.contains(word)).map_or("", |(_, engine)| engine)
}

/// How many threads the browser says that the machine has.
pub fn cores() -> Option<usize> {
    get(&navigator(), "hardwareConcurrency").as_f64().map(|cores| cores as usize)
}

/// Whether there is WebGPU. Without it, wgpu panics where there is neither a window nor a worker.
pub fn has_webgpu() -> bool {
    get(&navigator(), "gpu").is_object()
}

/// A device of the adapter that the browser prefers for speed, with the features that kernels can use and the adapter's
/// limits.
///
/// # Errors
/// [`Error::NoAdapter`], [`Error::RequestDevice`].
pub async fn open() -> Result<(wgpu::Device, wgpu::Queue)> {
    let no_adapter = || Error::NoAdapter { wanted: None, found: Vec::new() };
    let options = object(&[("powerPreference", &"high-performance".into())]);
    let adapter = call(&get(&navigator(), "gpu"), "requestAdapter", &options).await.map_err(|_| no_adapter())?;
    if !adapter.is_object() {
        return Err(no_adapter());
    }
    let (features, limits) = (get(&adapter, "features"), get(&adapter, "limits"));
    let wanted: Array = FEATURES.into_iter().filter(|name| has(&features, name)).map(JsValue::from).collect();
    let needed = Object::new();
    for name in LIMITS {
        set(&needed, name, &get(&limits, name));
    }
    let descriptor =
        object(&[("label", &"gpuconv".into()), ("requiredFeatures", &wanted), ("requiredLimits", &needed)]);
    adopt(&call(&adapter, "requestDevice", &descriptor).await.map_err(refused)?).await
}

/// wgpu's handles of a `GPUDevice` that JavaScript made.
///
/// wgpu has no call for that. But all that it knows of WebGPU comes from `navigator.gpu`, which it reads when an
/// instance is made. So this instance is made with another object in that place, whose only adapter has only this
/// device. The object is there for no longer than wgpu's call, in which no other code runs. Where a page has made
/// `navigator.gpu` unchangeable, `navigator` is the one that is another.
///
/// # Errors
/// [`Error::RequestDevice`] if it is no device.
pub async fn adopt(device: &JsValue) -> Result<(wgpu::Device, wgpu::Queue)> {
    if !get(device, "createComputePipeline").is_function() {
        return Err(refused("this is no GPUDevice".into()));
    }
    let adapter = object(&[
        ("features", &get(device, "features")),
        ("limits", &get(device, "limits")),
        ("info", &get(device, "adapterInfo")),
        ("requestDevice", &resolves_to(device)),
    ]);
    let gpu = object(&[("requestAdapter", &resolves_to(&adapter))]);
    let error = |error: String| Error::RequestDevice(Cause::new(error));
    let global: JsValue = js_sys::global().into();
    let make = || {
        let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        // wgpu looks for the class of a page's or a worker's global object first. Node.js has neither.
        match ["Window", "WorkerGlobalScope"].iter().any(|name| !get(&global, name).is_undefined()) {
            true => Some(wgpu::Instance::new(descriptor)),
            false => with_property(&global, "WorkerGlobalScope", &gpu, || wgpu::Instance::new(descriptor)),
        }
    };
    let instance = with_property(&navigator(), "gpu", &gpu, make)
        .or_else(|| with_property(&global, "navigator", &object(&[("gpu", &gpu)]), make))
        .flatten()
        .ok_or_else(|| error("neither navigator.gpu nor navigator can be changed here".into()))?;
    let adapter = instance.request_adapter(&Default::default()).await.map_err(|why| error(why.to_string()))?;
    let descriptor = GpuConv::descriptor(wgpu::Features::empty(), wgpu::Limits::default());
    adapter.request_device(&descriptor).await.map_err(|why| error(why.to_string()))
}

/// wgpu's handle of a `GPUBuffer` of a device, by the same way: its device's `createBuffer` gives that buffer for once.
///
/// # Errors
/// [`Error::Validation`] if it is no buffer.
pub fn adopt_buffer(device: &wgpu::Device, buffer: &JsValue) -> Result<wgpu::Buffer> {
    let numbers = get(buffer, "size").as_f64().zip(get(buffer, "usage").as_f64());
    let (Some((size, usage)), Some(own)) = (numbers, device.as_webgpu()) else {
        return Err(Error::Validation("this is no GPUBuffer".into()));
    };
    let usage = wgpu::BufferUsages::from_bits_truncate(usage as u32);
    let descriptor = wgpu::BufferDescriptor { label: None, size: size as u64, usage, mapped_at_creation: false };
    // `Object.prototype.valueOf` gives what it is bound to.
    let gives = Function::from(get(&Object::new(), "valueOf")).bind0(buffer);
    with_property(own, "createBuffer", &gives, || device.create_buffer(&descriptor))
        .ok_or_else(|| Error::Validation("the GPUDevice is frozen, so no buffer of the page's can be taken".into()))
}

/// An error scope of a browser's device. wgpu panics where one has caught an internal error (gfx-rs/wgpu issue 9914), and
/// leaves out what the browser says of memory.
pub struct ErrorScope {
    device: wgpu::Device,
    filter: wgpu::ErrorFilter,
}

impl ErrorScope {
    pub fn push(device: &wgpu::Device, filter: wgpu::ErrorFilter) -> Self {
        let name = match filter {
            wgpu::ErrorFilter::OutOfMemory => "out-of-memory",
            wgpu::ErrorFilter::Validation => "validation",
            wgpu::ErrorFilter::Internal => "internal",
        };
        let scope = Self { device: device.clone(), filter };
        scope.method("pushErrorScope", &name.into());
        scope
    }

    /// Ends the scope. The error that it caught comes later; a lost device has none.
    pub fn pop(self) -> impl Future<Output = Option<wgpu::Error>> + Send {
        let promise = Promise::resolve(&self.method("popErrorScope", &JsValue::UNDEFINED));
        let (sender, caught) = oneshot_channel();
        spawn_local(async move {
            let error = JsFuture::from(promise).await.unwrap_or(JsValue::NULL);
            let _ = sender.send(error.is_object().then(|| get(&error, "message").as_string().unwrap_or_default()));
        });
        let filter = self.filter;
        async move {
            let description = caught.receive().await.flatten()?;
            let source = description.clone().into();
            Some(match filter {
                wgpu::ErrorFilter::OutOfMemory => wgpu::Error::OutOfMemory { source },
                wgpu::ErrorFilter::Validation => wgpu::Error::Validation { source, description },
                wgpu::ErrorFilter::Internal => wgpu::Error::Internal { source, description },
            })
        }
    }

    /// Calls a method of the browser's device. None of these throws.
    fn method(&self, name: &str, argument: &JsValue) -> JsValue {
        let device = self.device.as_webgpu().map_or(JsValue::UNDEFINED, JsValue::from);
        let called = get(&device, name).dyn_into::<Function>().and_then(|method| method.call1(&device, argument));
        called.unwrap_or(JsValue::UNDEFINED)
    }
}

/// Has a browser look, while this is there, whether submitted work is done. By itself Chromium looks at once and then
/// every two milliseconds, Firefox every hundred. Both look when something is submitted, so nothing is, after one
/// millisecond and then after twice as many as before: the work is found done within twice its time.
pub struct Nudges {
    _wanted: Arc<()>,
}

impl Nudges {
    pub fn new(queue: &wgpu::Queue) -> Self {
        let (wanted, queue) = (Arc::new(()), queue.clone());
        let still_wanted = Arc::downgrade(&wanted);
        spawn_local(async move {
            // By then a browser looks often enough by itself.
            for milliseconds in [1, 2, 4, 8, 16, 32, 64] {
                pass(milliseconds).await;
                if still_wanted.strong_count() == 0 {
                    break;
                }
                queue.submit([]);
            }
        });
        Self { _wanted: wanted }
    }
}

/// Waits until a browser has most likely said that a device is lost, which it says some time after what fails by it.
pub async fn until_told() {
    let (sender, told) = oneshot_channel();
    spawn_local(async move {
        pass(50).await;
        let _ = sender.send(());
    });
    told.receive().await;
}

/// Waits, without a thread.
async fn pass(milliseconds: u32) {
    let timer: Option<Function> = get(&js_sys::global(), "setTimeout").dyn_into().ok();
    let promise = Promise::new(&mut |resolve, _| {
        let started = timer.as_ref().map(|timer| timer.call2(&JsValue::UNDEFINED, &resolve, &milliseconds.into()));
        if !matches!(started, Some(Ok(_))) {
            let _ = resolve.call0(&JsValue::UNDEFINED);
        }
    });
    let _ = JsFuture::from(promise).await;
}

/// A shader as browsers want it: with the line that declares what it uses. wgpu's own compiler refuses that line.
pub fn declared(wgsl: &str) -> String {
    let uses_subgroups = wgsl
        .match_indices("subgroup")
        .any(|(at, word)| wgsl[at + word.len()..].starts_with(|next: char| next.is_ascii_uppercase()));
    if uses_subgroups { format!("enable subgroups;\n{wgsl}") } else { wgsl.into() }
}

/// Runs something while an object has a property of this value. `None` if it cannot have it.
fn with_property<T>(object: &JsValue, name: &str, value: &JsValue, run: impl FnOnce() -> T) -> Option<T> {
    let key = JsValue::from(name);
    let before = match object.dyn_ref::<Object>() {
        Some(own) => Object::get_own_property_descriptor(own, &key),
        None => JsValue::UNDEFINED,
    };
    if !define(object, &key, &self::object(&[("value", value), ("configurable", &JsValue::TRUE)])) {
        return None;
    }
    let outcome = run();
    if before.is_undefined() {
        if let Some(object) = object.dyn_ref::<Object>() {
            let _ = Reflect::delete_property(object, &key);
        }
    } else {
        define(object, &key, &before);
    }
    Some(outcome)
}

/// Defines a property. Whether the object lets it.
fn define(object: &JsValue, key: &JsValue, descriptor: &JsValue) -> bool {
    match (object.dyn_ref::<Object>(), descriptor.dyn_ref::<Object>()) {
        (Some(object), Some(descriptor)) => Reflect::define_property(object, key, descriptor).unwrap_or(false),
        _ => false,
    }
}

/// A function that gives a promise of this value.
fn resolves_to(value: &JsValue) -> JsValue {
    let promise = get(&js_sys::global(), "Promise");
    Function::from(get(&promise, "resolve")).bind1(&promise, value).into()
}

async fn call(object: &JsValue, method: &str, argument: &JsValue) -> Result<JsValue, JsValue> {
    let method: Function = get(object, method).dyn_into()?;
    JsFuture::from(Promise::resolve(&method.call1(object, argument)?)).await
}

fn refused(why: JsValue) -> Error {
    let words = why.as_string().or_else(|| get(&why, "message").as_string());
    Error::RequestDevice(Cause::new(words.unwrap_or_else(|| "it does not say why".into())))
}

fn navigator() -> JsValue {
    get(&js_sys::global(), "navigator")
}

fn object(properties: &[(&str, &JsValue)]) -> JsValue {
    let object = Object::new();
    properties.iter().for_each(|(name, value)| set(&object, name, value));
    object.into()
}

/// A property; undefined of what is no object.
fn get(object: &JsValue, name: &str) -> JsValue {
    Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED)
}

fn set(object: &Object, name: &str, value: &JsValue) {
    let _ = Reflect::set(object, &name.into(), value);
}

/// Whether a set has this element.
fn has(set: &JsValue, element: &str) -> bool {
    let method = get(set, "has").dyn_into::<Function>();
    method.is_ok_and(|method| method.call1(set, &element.into()).is_ok_and(|answer| answer.is_truthy()))
}
