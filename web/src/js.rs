//! Between Rust and JavaScript: promises, errors, plain objects.

use std::error::Error as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use gpuconv::Error;
use js_sys::{Array, ArrayBuffer, Float32Array, Function, Promise, Reflect, Uint8Array, Uint8ClampedArray};
use serde::Serialize;
use wasm_bindgen::{JsCast, JsError, JsValue};
use wasm_bindgen_futures::future_to_promise;

use crate::options::text;

/// A promise of what some work gives.
pub fn promise<T: Into<JsValue>>(work: impl Future<Output = Result<T, JsValue>> + 'static) -> Promise {
    // On the heap, so that there is one function for all kinds of work: it is large.
    let work: Pin<Box<dyn Future<Output = Result<JsValue, JsValue>>>> =
        Box::pin(async move { work.await.map(Into::into) });
    future_to_promise(work)
}

/// An `Error` with the library's words, and with those of what caused it. Its name is that of the library's, where
/// programs may want to know it.
pub fn failed(error: Error) -> JsValue {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    let name = match error {
        Error::NoAdapter { .. } => "NoAdapter",
        Error::DeviceLost(_) => "DeviceLost",
        Error::OutOfMemory(_) => "OutOfMemory",
        _ => return refused(&words),
    };
    let error = refused(&words);
    let _ = Reflect::set(&error, &"name".into(), &name.into());
    error
}

/// An `Error` with these words.
pub fn refused(words: &str) -> JsValue {
    JsError::new(words).into()
}

/// The bytes of an `ArrayBuffer` or an array of bytes, called `what` in messages.
pub fn bytes(value: &JsValue, what: &str) -> Result<Vec<u8>, JsValue> {
    if !(value.has_type::<ArrayBuffer>() || value.has_type::<Uint8Array>() || value.has_type::<Uint8ClampedArray>()) {
        return Err(refused(&format!("{what} must be an ArrayBuffer or a Uint8Array, not {}", text(value))));
    }
    // js-sys's constructor catches nothing, and a buffer that was sent to a worker is there no more.
    let constructor: Function = Reflect::get(&js_sys::global(), &"Uint8Array".into())?.dyn_into()?;
    let array = Reflect::construct(&constructor, &Array::of1(value)).map_err(|_| given_away(what))?;
    let array: Uint8Array = array.unchecked_into();
    let mut bytes = room(array.length(), what)?;
    array.copy_to(&mut bytes);
    Ok(bytes)
}

/// The values of a `Float32Array`, called `what` in messages.
pub fn floats(value: &JsValue, what: &str) -> Result<Vec<f32>, JsValue> {
    let Some(array) = value.dyn_ref::<Float32Array>() else {
        return Err(refused(&format!("{what} must be a Float32Array, but is {}", text(value))));
    };
    // An array whose buffer was given away is empty, and can't be copied.
    if array.length() == 0 && Reflect::construct(&array.constructor(), &Array::of1(value)).is_err() {
        return Err(given_away(what));
    }
    let mut values = room(array.length(), what)?;
    array.copy_to(&mut values);
    Ok(values)
}

fn given_away(what: &str) -> JsValue {
    refused(&format!("{what} are there no more: their buffer was given away"))
}

/// Allocates memory for some values. The module has less than 4 GiB in all, and one allocation at most 2.
fn room<T: Clone + Default>(len: u32, what: &str) -> Result<Vec<T>, JsValue> {
    let mut values = Vec::new();
    let gib = f64::from(len) * size_of::<T>() as f64 / f64::from(1 << 30);
    values
        .try_reserve_exact(len as usize)
        .map_err(|_| refused(&format!("{what} take {gib:.2} GiB, for which the module has no memory")))?;
    values.resize(len as usize, T::default());
    Ok(values)
}

/// A string, called `what` in messages.
pub fn string(value: &JsValue, what: &str) -> Result<String, JsValue> {
    value.as_string().ok_or_else(|| refused(&format!("{what} must be a string, but is {}", text(value))))
}

/// A plain object. All that is given to it has a form in JSON.
pub fn json(value: &impl Serialize) -> JsValue {
    let text = serde_json::to_string(value).unwrap_or_default();
    js_sys::JSON::parse(&text).unwrap_or(JsValue::UNDEFINED)
}

/// Calls a function of the caller's, if there is one.
pub fn tell(function: &JsValue, value: &impl Serialize) -> Result<(), JsValue> {
    match function.dyn_ref::<Function>() {
        Some(function) => function.call1(&JsValue::UNDEFINED, &json(value)).map(|_| ()),
        None => Ok(()),
    }
}

/// Work that ends with the reason of an `AbortSignal` once it is aborted.
pub async fn stoppable<T>(signal: JsValue, work: impl Future<Output = Result<T, JsValue>>) -> Result<T, JsValue> {
    let get = |name: &str| Reflect::get(&signal, &name.into()).unwrap_or(JsValue::UNDEFINED);
    let mut work = pin!(work);
    poll_fn(|context| match get("aborted").is_truthy() {
        true => Poll::Ready(Err(get("reason"))),
        false => work.as_mut().poll(context),
    })
    .await
}
