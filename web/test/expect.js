// What tests expect.

export function floats(...values) {
  return new Float32Array(values);
}

export function equal(actual, expected) {
  const [a, b] = [actual, expected].map((value) => (ArrayBuffer.isView(value) ? [...value] : value));
  if (a !== b && JSON.stringify(a) !== JSON.stringify(b)) {
    throw new Error(`${JSON.stringify(a)} is not ${JSON.stringify(b)}`);
  }
}

function matches(error, expected) {
  if (!(error instanceof Error)) throw new Error(`${error} is no Error`);
  const is = typeof expected === "string" ? error.message.includes(expected) : expected.test(error.message);
  if (!is) throw new Error(`"${error.message}" is not ${expected}`);
}

export function throws(call, expected) {
  try {
    call();
  } catch (error) {
    return matches(error, expected);
  }
  throw new Error(`no error ${expected}`);
}

export async function rejects(promise, expected) {
  const outcome = await promise.then(() => null, (error) => error);
  if (!outcome) throw new Error(`no error ${expected}`);
  matches(outcome, expected);
}
