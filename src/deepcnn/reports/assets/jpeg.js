"use strict";
// Decodes large JPEG files at a half, a quarter or an eighth of their size, to the bit as
// libjpeg-turbo does for Python. A browser can only decode them whole, and a network sees the
// difference. (ITU-T T.81, 1992; libjpeg-turbo: jidctint.c, jidctred.c, jdsample.c, jdcolor.c.)
const jpeg = (() => {
  const ZIGZAG = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52,
    45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
  ];
  // Eight coefficients to 8, 4 or 2 values, in steps of 2^-13: the first half of the rows. In the
  // others, from the last one up, each second number has the other sign.
  const ROWS = {
    8: [
      [8192, 11363, 10703, 9633, 8192, 6437, 4433, 2260],
      [8192, 9633, 4433, -2259, -8192, -11362, -10704, -6436],
      [8192, 6437, -4433, -11362, -8192, 2261, 10704, 9633],
      [8192, 2260, -10703, -6436, 8192, 9633, -4433, -11363],
    ],
    4: [
      [16384, 20995, 15137, 7373, 0, -4926, -6270, -4176],
      [16384, 8697, -15137, -17799, 0, 11893, 6270, -1730],
    ],
    2: [[32768, 29692, 0, -10426, 0, 6967, 0, -5906]],
  };
  const MATRIX = {};
  for (const [size, rows] of Object.entries(ROWS)) {
    const others = rows.map((row) => row.map((factor, i) => (i % 2 ? -factor : factor)));
    MATRIX[size] = [...rows, ...others.reverse()];
  }
  const clamp = (value) => Math.min(255, Math.max(0, value));
  const up = (a, b) => Math.ceil(a / b);

  // Bits of the coded data from a place on; after its end come zeros.
  function reader(bytes, at) {
    let [held, count, missing] = [0, 0, 0];
    const fill = () => {
      while (count <= 16) {
        let byte = 0;
        if (bytes[at] === 0xff ? bytes[at + 1] === 0 : at < bytes.length) {
          byte = bytes[at];
          at += byte === 0xff ? 2 : 1;
        } else if (at >= bytes.length && ++missing > 64) {
          throw new Error("the file ends too early");
        }
        held = (held << 8) | byte;
        count += 8;
      }
    };
    const bits = (size) => {
      if (!size) return 0;
      fill();
      count -= size;
      return (held >> count) & ((1 << size) - 1);
    };
    return {
      bits,
      // A number of so many bits, whose first bit tells its sign.
      signed: (size) => {
        const value = bits(size);
        return size && value < 1 << (size - 1) ? value - (1 << size) + 1 : value;
      },
      symbol: (table) => {
        fill();
        const found = table[(held >> (count - 16)) & 0xffff];
        count -= found >> 8;
        return found & 255;
      },
      restart: () => {
        [held, count] = [0, 0];
        while (at < bytes.length && !(bytes[at] === 0xff && (bytes[at + 1] & 0xf8) === 0xd0)) at++;
        at += 2;
      },
      place: () => at,
    };
  }

  // Length and symbol that each 16 bits begin with.
  function huffman(counts, symbols) {
    const table = new Uint16Array(65536);
    let [code, next] = [0, 0];
    counts.forEach((count, i) => {
      for (let k = 0; k < count; k++) {
        const span = 1 << (15 - i);
        table.fill(((i + 1) << 8) | symbols[next++], code, code + span);
        code += span;
      }
    });
    return table;
  }

  // How the blocks of a scan are read: all at once, or in steps of more and more bits.
  function blockReader(read, scan) {
    const { from, to, high, low, progressive } = scan;
    let run = 0; // blocks with nothing more to come
    const dc = (part, block) => {
      part.last += read.signed(read.symbol(part.dc));
      block[0] = part.last * (1 << low);
    };
    const ac = (part, block, first, last) => {
      for (let k = first; k <= last; k++) {
        const symbol = read.symbol(part.ac);
        const size = symbol & 15;
        const zeros = symbol >> 4;
        if (!size && zeros < 15) {
          run = progressive ? (1 << zeros) - 1 + read.bits(zeros) : 0;
          return;
        }
        k += zeros;
        if (size) block[ZIGZAG[k & 63]] = read.signed(size) * (1 << low);
      }
    };
    // One more bit of the numbers that are not zero, and new ones of a single bit.
    const finer = (part, block) => {
      const step = 1 << low;
      const refine = (place) => {
        if (read.bits(1) && !(block[place] & step)) block[place] += Math.sign(block[place]) * step;
      };
      let k = from;
      while (k <= to && !run) {
        const symbol = read.symbol(part.ac);
        let zeros = symbol >> 4;
        let value = 0;
        if (symbol & 15) value = read.bits(1) ? step : -step;
        else if (zeros < 15) {
          run = (1 << zeros) + read.bits(zeros);
          break;
        }
        for (; k <= to; k++) {
          const place = ZIGZAG[k];
          if (block[place]) refine(place);
          else if (zeros-- === 0) {
            if (value) block[place] = value;
            k++;
            break;
          }
        }
      }
      if (!run) return;
      run--;
      for (; k <= to; k++) if (block[ZIGZAG[k]]) refine(ZIGZAG[k]);
    };
    const block = (part, values) => {
      if (!progressive) {
        dc(part, values);
        ac(part, values, 1, 63);
      } else if (from === 0) {
        if (!high) dc(part, values);
        else if (read.bits(1)) values[0] |= 1 << low;
      } else if (high) finer(part, values);
      else if (run) run--;
      else ac(part, values, from, to);
    };
    return { block, restart: () => { run = 0; } };
  }

  function readScan(bytes, at, image, parts, scan) {
    const read = reader(bytes, at);
    const reads = blockReader(read, scan);
    for (const part of parts) part.last = 0;
    const alone = parts.length === 1;
    const across = alone ? up(up(image.width * parts[0].h, image.h), 8) : image.across;
    const down = alone ? up(up(image.height * parts[0].v, image.v), 8) : image.down;
    for (let unit = 0; unit < across * down; unit++) {
      if (image.interval && unit && unit % image.interval === 0) {
        read.restart();
        reads.restart();
        for (const part of parts) part.last = 0;
      }
      const [y, x] = [Math.floor(unit / across), unit % across];
      for (const part of parts) {
        const [rows, columns] = alone ? [1, 1] : [part.v, part.h];
        for (let i = 0; i < rows; i++) {
          for (let j = 0; j < columns; j++) {
            const place = 64 * ((y * rows + i) * part.across + x * columns + j);
            reads.block(part, part.values.subarray(place, place + 64));
          }
        }
      }
    }
    return read.place();
  }

  // The values of a component, each block as `size` by `size` of them.
  function plane(part, size) {
    const { values, across, down, table } = part;
    const width = across * size;
    const data = new Uint8Array(width * down * size);
    const matrix = MATRIX[size];
    const shift = 11 + Math.log2(8 / size);
    const middle = new Int32Array(8 * size);
    for (let block = 0; block < across * down; block++) {
      const start = 64 * block;
      const target = Math.floor(block / across) * size * width + (block % across) * size;
      if (size === 1) {
        data[target] = clamp(((values[start] * table[0] + 4) >> 3) + 128);
        continue;
      }
      for (let column = 0; column < 8; column++) {
        for (let row = 0; row < size; row++) {
          let sum = 1 << (shift - 1);
          for (let i = 0; i < 8; i++) {
            const place = 8 * i + column;
            const value = values[start + place];
            if (value) sum += value * table[place] * matrix[row][i];
          }
          middle[8 * row + column] = sum >> shift;
        }
      }
      for (let row = 0; row < size; row++) {
        for (let column = 0; column < size; column++) {
          let sum = 1 << (shift + 6);
          for (let i = 0; i < 8; i++) sum += middle[8 * row + i] * matrix[column][i];
          data[target + row * width + column] = clamp((sum >> (shift + 7)) + 128);
        }
      }
    }
    return { data, width };
  }

  // Twice as many columns: by triangles, or where blocks are single values by repetition.
  function widened({ data, width }, columns, smooth) {
    const found = new Uint8Array(data.length * 2);
    for (let place = 0; place < data.length; place++) {
      const column = place % width;
      const value = data[place];
      const left = column > 0 && smooth ? data[place - 1] + 1 : value + 1;
      const right = column + 1 < columns && smooth ? data[place + 1] + 2 : value + 2;
      found[2 * place] = (3 * value + left) >> 2;
      found[2 * place + 1] = (3 * value + right) >> 2;
    }
    return { data: found, width: 2 * width };
  }

  function assemble(image, scale) {
    const smallest = 8 / scale;
    const [height, width] = [up(image.height, scale), up(image.width, scale)];
    const planes = [];
    for (const part of image.parts) {
      // As libjpeg, rather more of a block's values than fewer to be enlarged.
      let size = smallest;
      while (size < 8 && (image.h * smallest) % (part.h * size * 2) === 0 &&
             (image.v * smallest) % (part.v * size * 2) === 0) size *= 2;
      const wider = (image.h * smallest) / (part.h * size);
      if ((image.v * smallest) / (part.v * size) !== 1 || wider > 2 || wider % 1) return null;
      const columns = up(image.width * part.h * size, image.h * 8);
      const found = plane(part, size);
      planes.push(wider === 2 ? widened(found, columns, smallest > 1 && columns > 2) : found);
    }
    const channels = planes.length;
    const data = new Uint8Array(height * width * channels);
    for (let y = 0, j = 0; y < height; y++) {
      for (let x = 0; x < width; x++, j += channels) {
        const found = planes.map((one) => one.data[y * one.width + x]);
        if (channels === 1 || image.plain) {
          data.set(found, j);
          continue;
        }
        const [light, blue, red] = [found[0], found[1] - 128, found[2] - 128];
        data[j] = clamp(light + ((91881 * red + 32768) >> 16));
        data[j + 1] = clamp(light + ((-22554 * blue - 46802 * red + 32768) >> 16));
        data[j + 2] = clamp(light + ((116130 * blue + 32768) >> 16));
      }
    }
    return { data, height, width, channels };
  }

  // How EXIF says that a picture is to be turned, 1 to 8.
  function orientation(view, start, end) {
    if (end - start < 14 || view.getUint32(start) !== 0x45786966) return 1;
    const base = start + 6;
    const little = view.getUint16(base) === 0x4949;
    const entries = base + view.getUint32(base + 4, little);
    for (let i = 0; i < view.getUint16(entries, little); i++) {
      const at = entries + 2 + 12 * i;
      if (view.getUint16(at, little) !== 0x0112) continue;
      const value = view.getUint16(at + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
  }

  function turned(image, way) {
    if (way === 1) return image;
    const { data, height, width, channels } = image;
    const [rows, columns] = way > 4 ? [width, height] : [height, width];
    const found = new Uint8Array(data.length);
    for (let y = 0, j = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const [row, column] = way > 4 ? [x, y] : [y, x];
        const from = [3, 4, 6, 7].includes(way) ? height - 1 - row : row;
        const start = from * width + ([2, 3, 7, 8].includes(way) ? width - 1 - column : column);
        for (let k = 0; k < channels; k++) found[j++] = data[start * channels + k];
      }
    }
    return { data: found, height: rows, width: columns, channels };
  }

  function frame(bytes, view, at, progressive) {
    const image = { progressive, height: view.getUint16(at + 1), width: view.getUint16(at + 3) };
    image.parts = Array.from({ length: bytes[at + 5] }, (_, i) => {
      const [id, sides, q] = bytes.subarray(at + 6 + 3 * i, at + 9 + 3 * i);
      return { id, h: sides >> 4, v: sides & 15, q };
    });
    image.h = Math.max(...image.parts.map((part) => part.h));
    image.v = Math.max(...image.parts.map((part) => part.v));
    image.across = up(image.width, 8 * image.h);
    image.down = up(image.height, 8 * image.v);
    const alone = image.parts.length === 1;
    for (const part of image.parts) {
      if (alone) {
        [part.h, part.v, image.h, image.v] = [1, 1, 1, 1];
        [image.across, image.down] = [up(image.width, 8), up(image.height, 8)];
      }
      [part.across, part.down] = [image.across * part.h, image.down * part.v];
    }
    return bytes[at] === 8 && [1, 3].includes(image.parts.length) ? image : null;
  }

  // Return the picture of a JPEG file at the smallest size that leaves `side` pixels a side; null
  // where that is its own size, and for files that only a browser reads.
  function decode(bytes, side) {
    try {
      return decoded(bytes, side);
    } catch {
      return null;
    }
  }

  function decoded(bytes, side) {
    if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return null;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const tables = { q: {}, dc: {}, ac: {} };
    let [image, way, scale, adobe, at, interval] = [null, 1, 1, null, 2, 0];
    while (at + 4 <= bytes.length) {
      const marker = bytes[at + 1];
      if (bytes[at] !== 0xff || marker === 0xff) {
        at++;
        continue;
      }
      if (marker === 0xd9) break;
      const end = at + 2 + view.getUint16(at + 2);
      let place = at + 4;
      at = end;
      if (marker === 0xdb) {
        while (place < end) {
          const [wide, number] = [bytes[place] >> 4, bytes[place] & 15];
          const table = (tables.q[number] = new Int32Array(64));
          place++;
          for (let k = 0; k < 64; k++, place += wide ? 2 : 1) {
            table[ZIGZAG[k]] = wide ? view.getUint16(place) : bytes[place];
          }
        }
      } else if (marker === 0xc4) {
        while (place < end) {
          const kind = bytes[place] >> 4 ? tables.ac : tables.dc;
          const counts = Array.from(bytes.subarray(place + 1, place + 17));
          const count = counts.reduce((a, b) => a + b, 0);
          const symbols = bytes.subarray(place + 17, place + 17 + count);
          kind[bytes[place] & 15] = huffman(counts, symbols);
          place += 17 + count;
        }
      } else if (marker === 0xdd) interval = view.getUint16(place);
      else if (marker === 0xe1) way = way === 1 ? orientation(view, place, end) : way;
      else if (marker === 0xee && view.getUint32(place) === 0x41646f62) adobe = bytes[place + 11];
      else if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc8 && marker !== 0xcc) {
        if (marker > 0xc2 || !(image = frame(bytes, view, place, marker === 0xc2))) return null;
        const most = Math.floor(Math.min(image.height, image.width) / side);
        scale = [8, 4, 2].find((size) => most >= size) ?? 1;
        if (scale === 1 || image.height * image.width > 2 ** 26) return null;
        for (const part of image.parts) part.values = new Int16Array(64 * part.across * part.down);
      } else if (marker === 0xda) {
        const parts = Array.from({ length: bytes[place] }, (_, i) => {
          const [id, numbers] = bytes.subarray(place + 1 + 2 * i, place + 3 + 2 * i);
          const part = image.parts.find((each) => each.id === id);
          [part.dc, part.ac] = [tables.dc[numbers >> 4], tables.ac[numbers & 15]];
          part.table ??= tables.q[part.q];
          return part;
        });
        const [from, to, both] = bytes.subarray(end - 3, end);
        const { progressive } = image;
        const steps = { from, to, high: both >> 4, low: both & 15, progressive };
        image.interval = interval;
        at = readScan(bytes, end, image, parts, steps);
      }
    }
    if (image.parts.some((part) => !part.table)) return null;
    const names = String.fromCharCode(...image.parts.map((part) => part.id));
    image.plain = adobe === null ? names === "RGB" : adobe === 0;
    const found = assemble(image, scale);
    return found && turned(found, way);
  }

  return { decode };
})();
