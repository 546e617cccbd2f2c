"use strict";
// Answers about a picture with a trained network: plain JavaScript, without anything else.
// Images are {data, height, width, channels}: rows, columns, channels. A program is a list of
// operations; value 0 is the image, and each operation makes the next value {data, shape}.
const engine = (() => {
  // Give each operation its constants: `text` holds those of all in base64.
  function open(program, text) {
    const { buffer } = Uint8Array.from(atob(text.trim()), (sign) => sign.charCodeAt(0));
    const operations = program.operations.map((operation) => {
      const opened = { ...operation };
      for (const name of ["weight", "bias", "scale", "shift"]) {
        const about = operation[name];
        if (!about) continue;
        if (about.scales === undefined) {
          opened[name] = new Float32Array(buffer, about.at, about.count);
          continue;
        }
        const outputs = operation.out[operation.out.length - 1];
        const scales = new Float32Array(buffer, about.scales, outputs);
        const steps = new Int16Array(buffer, about.at, about.count);
        opened[name] = Float32Array.from(steps, (step, i) => step * scales[i % outputs]);
      }
      return opened;
    });
    return { ...program, operations };
  }

  // ------------------------------------------------ pictures, as Pillow and `decoding` do it

  // Bring pixels of `step` values each (gray, RGB, or RGBA without transparency) to RGB or gray.
  function inChannels(pixels, step, height, width, channels) {
    const data = new Uint8Array(height * width * channels);
    for (let i = 0, j = 0; j < data.length; i += step) {
      const more = step > 1 ? 1 : 0;
      const red = pixels[i];
      const green = pixels[i + more];
      const blue = pixels[i + 2 * more];
      if (channels === 1) data[j++] = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16;
      else {
        data[j++] = red;
        data[j++] = green;
        data[j++] = blue;
      }
    }
    return { data, height, width, channels };
  }

  function sinc(x) {
    return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
  }

  // The pixels that each new one is made of: first, and weights in steps of 2^-22.
  function taps(size, from, to, count) {
    const scale = Math.fround(to - from) / count;
    const stretch = Math.max(1, scale);
    return Array.from({ length: count }, (_, place) => {
      const centre = from + (place + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - 3 * stretch + 0.5));
      const last = Math.min(size, Math.trunc(centre + 3 * stretch + 0.5));
      const weights = [];
      for (let i = first; i < last; i++) {
        const x = (i - centre + 0.5) * (1 / stretch);
        weights.push(x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0);
      }
      const sum = weights.reduce((a, b) => a + b, 0);
      const whole = weights.map((weight) => {
        const steps = (sum ? weight / sum : weight) * 2 ** 22;
        return Math.trunc(steps < 0 ? steps - 0.5 : steps + 0.5);
      });
      return { first, weights: whole };
    });
  }

  // Resample `lines` lines of `size` pixels, which are `step` apart in data, to `count` pixels.
  function resample(image, count, from, to, down) {
    const { data, height, width, channels } = image;
    const size = down ? height : width;
    if (count === size && from === 0 && to === size) return image;
    const found = down
      ? { height: count, width, channels }
      : { height, width: count, channels };
    found.data = new Uint8Array(found.height * found.width * channels);
    const row = width * channels;
    const step = down ? row : channels;
    const lines = down ? row : height;
    taps(size, from, to, count).forEach(({ first, weights }, place) => {
      for (let line = 0; line < lines; line++) {
        const start = (down ? line : line * row) + first * step;
        const target = down ? place * row + line : (line * count + place) * channels;
        for (let channel = 0; channel < (down ? 1 : channels); channel++) {
          let sum = 2 ** 21;
          for (let i = 0; i < weights.length; i++) {
            sum += data[start + i * step + channel] * weights[i];
          }
          found.data[target + channel] = Math.min(255, Math.max(0, Math.floor(sum / 2 ** 22)));
        }
      }
    });
    return found;
  }

  // Scale a picture until it covers a size, and cut it to that around its centre (Lanczos).
  // `tallFirst`: whether Pillow, since 13, shrinks tall pictures by columns first: it rounds between.
  function fit(image, height, width, tallFirst) {
    if (image.height === height && image.width === width) return image;
    const shape = width / height;
    const its = image.width / image.height;
    const across = its > shape ? shape * image.height : image.width;
    const down = its < shape ? image.width / shape : image.height;
    const left = (image.width - across) * 0.5;
    const top = (image.height - down) * 0.5;
    const box = [left, top, left + across, top + down].map(Math.fround);
    const more = image.height - height;
    const order = tallFirst && more > 0 && more > 2 * (image.width - width) ? [1, 0] : [0, 1];
    for (const down of order) {
      image = resample(image, [width, height][down], box[down], box[down + 2], down === 1);
    }
    return image;
  }

  // ------------------------------------------------ from pixels to the network's input

  // Cut the network's input out of an image; `down` and `across`: how far from the corner, 0 to 1.
  function cut(program, image, down, across) {
    const [height, width] = program.crop;
    const { channels } = image;
    const top = Math.floor((image.height - height) * down);
    const left = Math.floor((image.width - width) * across);
    const data = new Float32Array(height * width * channels);
    for (let y = 0, j = 0; y < height; y++) {
      const start = ((y + top) * image.width + left) * channels;
      for (let i = 0; i < width * channels; i++) data[j++] = image.data[start + i];
    }
    return { data, shape: [height, width, channels] };
  }

  function standardized(program, { data, shape }) {
    const channels = shape[2];
    let { mean, std } = program;
    if (program.standardize === "image") {
      let [sum, squares] = [0, 0];
      for (const value of data) {
        sum += value;
        squares += value * value;
      }
      const count = data.length;
      const variance = (squares - (sum * sum) / count) / count;
      mean = new Array(channels).fill(sum / count);
      std = new Array(channels).fill(Math.max(Math.sqrt(variance), 1 / Math.sqrt(count)));
    }
    return { data: data.map((x, i) => (x - mean[i % mean.length]) / std[i % channels]), shape };
  }

  // Take each pixel from elsewhere in the same image.
  function moved(value, row, column) {
    const [height, width, channels] = value.shape;
    const data = new Float32Array(value.data.length);
    for (let y = 0, j = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const start = (row(y, height) * width + column(x, width)) * channels;
        for (let i = 0; i < channels; i++) data[j++] = value.data[start + i];
      }
    }
    return { data, shape: value.shape };
  }

  const mirrored = (value) => moved(value, (y) => y, (x, width) => width - 1 - x);

  // Shifted by a pixel up left and down right over reflected edges, and mirrored.
  function shifted(value) {
    const reflect = (i, size) => (size - 1) - Math.abs((size - 1) - Math.abs(i));
    const by = (step) => (i, size) => reflect(i + step, size);
    const two = [-1, 1].map((step) => moved(value, by(step), by(step)));
    return [...two, ...two.map(mirrored)];
  }

  // ------------------------------------------------ operations

  function conv(value, operation) {
    const [height, width, inputs] = value.shape;
    const [rows, columns, outputs] = operation.out;
    const { kernel, pad, weight, bias, stride = [1, 1], dilation = [1, 1], groups = 1 } = operation;
    const taps = operation.op === "local" ? kernel[0] * kernel[1] * inputs : 0; // of each place
    const input = value.data;
    const mine = inputs / groups;
    const theirs = outputs / groups;
    const data = new Float32Array(rows * columns * outputs);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const target = (y * columns + x) * outputs;
        const own = taps && target;
        if (bias) data.set(bias.subarray(own, own + outputs), target);
        for (let i = 0; i < kernel[0]; i++) {
          const row = y * stride[0] - pad[0] + i * dilation[0];
          if (row < 0 || row >= height) continue;
          for (let j = 0; j < kernel[1]; j++) {
            const column = x * stride[1] - pad[1] + j * dilation[1];
            if (column < 0 || column >= width) continue;
            const start = (row * width + column) * inputs;
            const tap = (i * kernel[1] + j) * mine;
            for (let k = 0; k < inputs; k++) {
              const factor = input[start + k];
              if (factor === 0) continue;
              const group = Math.floor(k / mine);
              const filter = own * taps + (tap + k - group * mine) * outputs;
              const end = (group + 1) * theirs;
              for (let o = group * theirs; o < end; o++) {
                data[target + o] += factor * weight[filter + o];
              }
            }
          }
        }
      }
    }
    return data;
  }

  function linear(value, { weight, bias, out: [outputs] }) {
    const data = new Float32Array(outputs);
    if (bias) data.set(bias);
    value.data.forEach((factor, k) => {
      if (factor === 0) return;
      for (let o = 0; o < outputs; o++) data[o] += factor * weight[k * outputs + o];
    });
    return data;
  }

  // Windows that hang over an edge have fewer pixels.
  function pool(value, { kernel, stride, pad, out }, start, join, finish) {
    const [height, width, channels] = value.shape;
    const [rows, columns] = out.length === 3 ? out : [1, 1];
    const data = new Float32Array(rows * columns * channels);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const [top, left] = [y * stride[0] - pad[0], x * stride[1] - pad[1]];
        for (let k = 0; k < channels; k++) {
          let found = start;
          for (let i = Math.max(0, top); i < Math.min(height, top + kernel[0]); i++) {
            for (let j = Math.max(0, left); j < Math.min(width, left + kernel[1]); j++) {
              found = join(found, value.data[(i * width + j) * channels + k]);
            }
          }
          data[(y * columns + x) * channels + k] = finish(found);
        }
      }
    }
    return data;
  }

  function responseNorm(value, { before, after, start, alpha, beta }) {
    const channels = value.shape[2];
    return value.data.map((x, place, all) => {
      const k = place % channels;
      let sum = 0;
      for (let i = Math.max(0, k - before); i <= Math.min(channels - 1, k + after); i++) {
        sum += all[place - k + i] ** 2;
      }
      return x * (start + alpha * sum) ** -beta;
    });
  }

  // By row, column, channel is how values lie; torch flattens by channel, row, column.
  function channelsFirst({ data, shape: [height, width, channels] }) {
    const area = height * width;
    return data.map((_, place) => data[(place % area) * channels + Math.floor(place / area)]);
  }

  // The error function, to 1.5e-7 (Abramowitz and Stegun, 1964, 7.1.26).
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const factors = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
    const sum = factors.reduce((total, factor) => (total + factor) * t, 0);
    return Math.sign(x) * (1 - sum * Math.exp(-x * x));
  }

  const each = (change) => (value) => value.data.map(change);
  const known = {
    conv,
    local: conv,
    linear,
    maxpool: (value, op) => pool(value, op, -Infinity, Math.max, (x) => x),
    avgpool: (value, op) =>
      pool(value, op, 0, (a, b) => a + b, (sum) => sum / (op.kernel[0] * op.kernel[1])),
    affine: (value, { scale, shift }) =>
      value.data.map((x, i) => x * scale[i % scale.length] + shift[i % scale.length]),
    lrn: responseNorm,
    flat: (value) => value.data,
    flatten: channelsFirst,
    add: (value, op, other) => value.data.map((x, i) => x + other.data[i]),
    relu: each((x) => Math.max(x, 0)),
    leaky: (value, { slope }) => value.data.map((x) => (x < 0 ? slope * x : x)),
    silu: each((x) => x / (1 + Math.exp(-x))),
    gelu: each((x) => 0.5 * x * (1 + erf(x / Math.SQRT2))),
    sigmoid: each((x) => 1 / (1 + Math.exp(-x))),
    tanh: each(Math.tanh),
  };

  function logits(program, value) {
    const values = [value];
    for (const operation of program.operations) {
      const taken = operation.of.map((number) => values[number]);
      const data = known[operation.op](taken[0], operation, taken[1]);
      values.push({ data, shape: operation.out });
    }
    return Array.from(values[values.length - 1].data);
  }

  // ------------------------------------------------ answers

  const average = (all) =>
    all[0].map((_, i) => all.reduce((sum, one) => sum + one[i], 0) / all.length);
  const mean = (program, views) => average(views.map((view) => logits(program, view)));

  function energy(values) {
    const largest = Math.max(...values);
    return largest + Math.log(values.reduce((sum, x) => sum + Math.exp(x - largest), 0));
  }

  function softmax(values, temperature) {
    const scaled = values.map((x) => x / temperature);
    const all = energy(scaled);
    return scaled.map((x) => Math.exp(x - all));
  }

  function overViews(program, image) {
    const [middle, ...corners] =
      [[0.5, 0.5], [0, 0], [0, 1], [1, 0], [1, 1]].map((place) => cut(program, image, ...place));
    if (program.views === "ten") {
      const all = [middle, ...corners]
        .flatMap((crop) => [crop, mirrored(crop)])
        .map((view) => logits(program, standardized(program, view)));
      const [evidence] = average(all.map((one) => [energy(one)]));
      return average(all.map((one) => softmax(one, 1))).map((p) => Math.log(p) + evidence);
    }
    const central = standardized(program, middle);
    if (program.views === "one") return logits(program, central);
    const first = mean(program, [central, mirrored(central)]);
    if (program.views === "mirrored") return first;
    if (program.views === "unsure" && program.margin !== null) {
      const [largest, next = largest] = [...first].sort((a, b) => b - a);
      if (!(largest - next < program.margin)) return first;
    }
    const again = mean(program, shifted(central));
    return first.map((one, i) => (one + again[i]) / 2);
  }

  // How unlike the pictures that were learned an image is; see `kinds` in Python.
  function distance(kind, { data, height, width, channels }) {
    const at = (y, x, k) => data[(y * width + x) * channels + k] / 255;
    let [sum, squares, colour, across, down, second] = [0, 0, 0, 0, 0, 0];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        let [gray, low, high] = [0, 1, 0];
        for (let k = 0; k < channels; k++) {
          const value = at(y, x, k);
          gray += value / channels;
          low = Math.min(low, value);
          high = Math.max(high, value);
          if (x + 1 < width) across += Math.abs(at(y, x + 1, k) - value);
          if (y + 1 < height) down += Math.abs(at(y + 1, x, k) - value);
          if (x && y && x + 1 < width && y + 1 < height) {
            const near = at(y - 1, x, k) + at(y + 1, x, k) + at(y, x - 1, k) + at(y, x + 1, k);
            second += Math.abs(4 * value - near);
          }
        }
        sum += gray;
        squares += gray * gray;
        colour += high - low;
      }
    }
    const area = height * width;
    const rest = [
      Math.sqrt(Math.max(0, squares / area - (sum / area) ** 2)),
      across / (height * (width - 1) * channels),
      down / ((height - 1) * width * channels),
      second / ((height - 2) * (width - 2) * channels),
      colour / area,
    ];
    const away = [sum / area, ...rest.map((value) => Math.log(value + 1e-3))];
    const centred = away.map((value, i) => value - kind.mean[i]);
    return centred.reduce(
      (total, a, i) => total + centred.reduce((s, b, j) => s + a * b * kind.precision[i][j], 0),
      0,
    );
  }

  // Answer about an image of the program's size: {label, probabilities, unsure}.
  function answer(program, image) {
    const found = overViews(program, image);
    const probabilities = softmax(found, program.temperature);
    const { kind, leastEnergy, leastProbability } = program;
    const isStrange =
      (leastEnergy !== null && energy(found) < leastEnergy) ||
      (kind !== null && distance(kind, image) > kind.most);
    const isWeak = leastProbability !== null && Math.max(...probabilities) < leastProbability;
    return {
      label: found.indexOf(Math.max(...found)),
      probabilities,
      unsure: isStrange ? "unknown" : isWeak ? "error" : null,
    };
  }

  return { open, inChannels, fit, logits, answer };
})();
