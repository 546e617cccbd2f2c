"use strict";
// The box: takes a picture (file, paste, drag), lets the engine answer, and shows what it said.
const box = (() => {
  const source = document.getElementById("program");
  if (!source) return null;
  const [drop, file, shown, said, took] =
    ["drop", "file", "answer", "said", "took"].map((id) => document.getElementById(id));
  const canvas = document.getElementById("seen");
  const rows = document.getElementById("chances").tBodies[0];
  let program = null;

  // Return the pixels of a picture: turned as EXIF says, over black, no colours converted.
  async function read(blob) {
    const [high, wide, channels] = program.image;
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const small = jpeg.decode(bytes, 2 * Math.max(high, wide));
    if (small) {
      return engine.inChannels(small.data, small.channels, small.height, small.width, channels);
    }
    const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    const { height, width } = bitmap;
    if (height * width > 2 ** 26) throw new Error("it has more than 67 million pixels");
    const paper = document.createElement("canvas");
    [paper.height, paper.width] = [height, width];
    const pen = paper.getContext("2d", { alpha: false, willReadFrequently: true });
    pen.drawImage(bitmap, 0, 0);
    bitmap.close();
    return engine.inChannels(pen.getImageData(0, 0, width, height).data, 4, height, width, channels);
  }

  function paint({ data, height, width, channels }) {
    [canvas.height, canvas.width] = [height, width];
    const pixels = new ImageData(width, height);
    for (let i = 0; i < height * width; i++) {
      for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = data[i * channels + (k % channels)];
      pixels.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  function tell({ label, probabilities, unsure }, milliseconds, given) {
    const name = document.createElement("strong");
    name.textContent = program.classes[label];
    const doubts = {
      error: " – unsure: answers no surer than this are wrong too often",
      unknown: " – unsure: this picture is unlike all that the network has learned from",
    };
    said.replaceChildren(name, ` ${percent(probabilities[label])}${doubts[unsure] ?? ""}`);
    const order = probabilities.map((_, i) => i);
    order.sort((a, b) => probabilities[b] - probabilities[a]);
    rows.replaceChildren(...order.slice(0, 10).map((i) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = program.classes[i];
      const bar = document.createElement("div");
      bar.className = "bar";
      bar.style.width = percent(probabilities[i]).replace(" ", "");
      row.append(head);
      row.insertCell().append(bar);
      row.insertCell().textContent = percent(probabilities[i]);
      return row;
    }));
    const more = order.length > 10 ? `the ten likeliest of ${order.length} classes; ` : "";
    const first = given > 1 ? `the first of ${given} pictures; ` : "";
    took.textContent = `${first}${more}${milliseconds.toFixed(0)} ms in this browser`;
  }

  // Answer about a picture, the first of so many, show it, and return the answer.
  async function answer(blob, given = 1) {
    shown.hidden = false;
    said.textContent = "…";
    await new Promise((done) => setTimeout(done));
    try {
      if (!program) {
        const weights = document.getElementById("weights").textContent;
        program = engine.open(JSON.parse(source.textContent), weights);
      }
      const start = performance.now();
      const [height, width] = program.image;
      const image = engine.fit(await read(blob), height, width, program.tallFirst);
      paint(image);
      const found = engine.answer(program, image);
      tell(found, performance.now() - start, given);
      return found;
    } catch (error) {
      rows.replaceChildren();
      took.textContent = "";
      said.textContent = `This picture cannot be read: ${error.message}`;
      return null;
    }
  }

  const take = (files) => (files?.length ? answer(files[0], files.length) : undefined);
  file.addEventListener("change", () => {
    take(file.files);
    file.value = "";
  });
  addEventListener("paste", (event) => take(event.clipboardData?.files));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer?.files);
  });
  return { answer, read };
})();
