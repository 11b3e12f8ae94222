//! Tensors.

use std::cell::RefCell;
use std::rc::Rc;

use gpuconv::{DType, Error, Layout, Shape, Tensor as Inner};
use js_sys::{Array, Promise};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::GpuConv;
use crate::js::{failed, promise, refused};
use crate::options::{Options, dtype, layout, text, whole};

/// Numbers on the GPU, with a shape and a layout.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    layout: Layout,
    dtype: DType,
    memory: Rc<Memory>,
}

/// A tensor's memory, given back with the last handle, or when it is made if all are gone by then.
struct Memory {
    made: Rc<Made>,
    /// Done when `made` is there, if it was not from the start.
    making: Option<Promise>,
    _gpu: GpuConv,
}

/// What became of a tensor, once something did.
struct Made {
    tensor: RefCell<Option<Result<Inner, Error>>>,
    is_own: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        // What was submitted before still finds it.
        if let (Some(Ok(tensor)), true) = (self.tensor.get_mut(), self.is_own) {
            tensor.buffer().destroy();
        }
    }
}

#[wasm_bindgen]
impl Tensor {
    /// Images, channels, rows, columns.
    #[wasm_bindgen(getter, unchecked_return_type = "Shape")]
    pub fn shape(&self) -> Array {
        extents(self.shape)
    }

    /// The order of its elements.
    #[wasm_bindgen(getter, unchecked_return_type = "Layout")]
    pub fn layout(&self) -> String {
        self.layout.to_string()
    }

    /// The type of its elements on the device.
    #[wasm_bindgen(getter, unchecked_return_type = "DType")]
    pub fn dtype(&self) -> String {
        self.dtype.to_string()
    }

    /// How many elements it has.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> f64 {
        self.shape.len() as f64
    }

    /// The buffer that it is in, once it was made.
    #[wasm_bindgen(unchecked_return_type = "Promise<GPUBuffer>")]
    pub fn buffer(&self) -> Promise {
        let tensor = self.clone();
        promise(async move { Ok(tensor.made().await?.buffer().as_webgpu().map_or(JsValue::UNDEFINED, JsValue::from)) })
    }

    /// Another handle of the same memory, which is given back when all are freed.
    pub fn share(&self) -> Self {
        self.clone()
    }
}

impl Tensor {
    /// A tensor of values that are on their way.
    pub fn upload(
        gpu: &GpuConv,
        values: Vec<f32>,
        shape: Shape,
        layout: Layout,
        dtype: DType,
    ) -> Result<Self, JsValue> {
        if values.len() as u64 != shape.len() {
            let (expected, actual) = (shape.len(), values.len() as u64);
            return Err(failed(Error::Length { what: "tensor".into(), expected, actual }));
        }
        let made = Rc::new(Made { tensor: RefCell::new(None), is_own: true });
        let (to_make, own) = (made.clone(), gpu.clone());
        let making = promise(async move {
            let tensor = own.gpu().upload_of_async(&values, shape, layout, dtype).await;
            *to_make.tensor.borrow_mut() = Some(tensor);
            Ok(JsValue::UNDEFINED)
        });
        let memory = Memory { made, making: Some(making), _gpu: gpu.clone() };
        Ok(Self { shape, layout, dtype, memory: Rc::new(memory) })
    }

    /// A tensor that is there.
    pub fn of(gpu: &GpuConv, tensor: Inner, is_own: bool) -> Self {
        let (shape, layout, dtype) = (tensor.shape(), tensor.layout(), tensor.dtype());
        let made = Rc::new(Made { tensor: RefCell::new(Some(Ok(tensor))), is_own });
        let memory = Memory { made, making: None, _gpu: gpu.clone() };
        Self { shape, layout, dtype, memory: Rc::new(memory) }
    }

    /// A tensor in a buffer of the page's.
    pub fn of_buffer(gpu: &GpuConv, buffer: &JsValue, shape: Shape, options: &JsValue) -> Result<Self, JsValue> {
        let options = Options::of("tensor", options, &["offset", "layout", "dtype"])?;
        let (offset, layout) = (options.number("offset", Some(0))?, layout(&options.get("layout"))?);
        let dtype = dtype(&options.get("dtype"))?;
        let tensor = gpu.gpu().tensor_of_webgpu_buffer(buffer, offset.into(), shape, layout, dtype);
        Ok(Self::of(gpu, tensor.map_err(failed)?, false))
    }

    /// The library's tensor, once it is there.
    pub async fn made(&self) -> Result<Inner, JsValue> {
        if let Some(making) = &self.memory.making {
            JsFuture::from(making.clone()).await?;
        }
        match &*self.memory.made.tensor.borrow() {
            Some(made) => made.clone().map_err(failed),
            None => Err(refused("the tensor was freed")),
        }
    }
}

/// A shape as an array of JavaScript.
pub fn extents(shape: Shape) -> Array {
    <[u32; 4]>::from(shape).into_iter().map(JsValue::from).collect()
}

/// Images, channels, rows and columns.
pub fn shape(value: &JsValue) -> Result<Shape, JsValue> {
    let extents: Option<Vec<u32>> =
        value.dyn_ref::<Array>().and_then(|array| array.iter().map(|v| whole(&v)).collect());
    let extents: Option<[u32; 4]> = extents.and_then(|extents| extents.try_into().ok());
    extents
        .map(Shape::from)
        .ok_or_else(|| refused(&format!("a shape is [images, channels, rows, columns], not {}", text(value))))
}
