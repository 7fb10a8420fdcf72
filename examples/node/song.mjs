// A song from Node.js by the KServe v2 protocol; nothing of heartvoice is needed.
//   node song.mjs kserve.desc 127.0.0.1:8001 song.wav "La la la" 8
import { readFileSync, writeFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import { loadFileDescriptorSetFromBuffer } from "@grpc/proto-loader";

const [descriptors, url, output, lyrics, seconds] = process.argv.slice(2);
const options = { keepCase: true, longs: Number, arrays: true };
const definition = loadFileDescriptorSetFromBuffer(readFileSync(descriptors), options);
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;
// Behind a gateway: grpc.credentials.createSsl(), and a Metadata with `authorization: Bearer TOKEN` in the call.
const client = new GRPCInferenceService(url, grpc.credentials.createInsecure());

const inputs = [];
const raw_input_contents = [];
function text(name, value) {
  const bytes = Buffer.from(value, "utf8");
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  inputs.push({ name, datatype: "BYTES", shape: [1] });
  raw_input_contents.push(Buffer.concat([length, bytes]));
}
function float(name, value) {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  inputs.push({ name, datatype: "FP32", shape: [1] });
  raw_input_contents.push(bytes);
}
text("lyrics", lyrics);
float("duration_s", Number(seconds));

const chunks = []; // of [left, right]
let report;
const stream = client.ModelStreamInfer({ deadline: Date.now() + 600_000 });
stream.on("data", ({ error_message, infer_response }) => {
  if (error_message) {
    stream.cancel(); // the song with it
    fail(error_message); // "INVALID_ARG: duration_s: expected 1 to 240 s, got 0.0"
  }
  for (const [index, { name, shape }] of infer_response.outputs.entries()) {
    const bytes = infer_response.raw_output_contents[index];
    if (name === "AUDIO") {
      const samples = new Float32Array(new Uint8Array(bytes).buffer);
      chunks.push([samples.subarray(0, shape[1]), samples.subarray(shape[1])]); // 48 kHz
    }
    if (name === "REPORT") report = JSON.parse(bytes.subarray(4).toString("utf8"));
  }
});
stream.on("error", (error) => fail(error.message));
stream.on("end", () => {
  const samples = save(output);
  console.log(`${output}: ${samples} samples, seed ${report.seed}, contract ${report.contract}`);
  client.close();
});
stream.write({ model_name: "song", model_version: "1", inputs, raw_input_contents });
stream.end();

function fail(message) {
  console.error(message);
  process.exit(1);
}

function save(path) {
  const count = chunks.reduce((sum, [left]) => sum + left.length, 0);
  const wav = Buffer.alloc(44 + 8 * count);
  wav.write("RIFF", 0);
  wav.writeUInt32LE(36 + 8 * count, 4);
  wav.write("WAVEfmt ", 8);
  wav.writeUInt32LE(16, 16);
  wav.writeUInt16LE(3, 20); // float
  wav.writeUInt16LE(2, 22);
  wav.writeUInt32LE(48_000, 24);
  wav.writeUInt32LE(48_000 * 8, 28);
  wav.writeUInt16LE(8, 32);
  wav.writeUInt16LE(32, 34);
  wav.write("data", 36);
  wav.writeUInt32LE(8 * count, 40);
  let at = 44;
  for (const [left, right] of chunks) {
    for (let n = 0; n < left.length; n += 1) {
      wav.writeFloatLE(left[n], at);
      wav.writeFloatLE(right[n], at + 4);
      at += 8;
    }
  }
  writeFileSync(path, wav);
  return count;
}
