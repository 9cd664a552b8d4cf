// WAV files, made in the page.

/** A mono file of 16 bit samples, given in parts. */
export function wavOf(parts, sampleRate) {
  const numBytes = 2 * parts.reduce((sum, part) => sum + part.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const write = (at, text) => {
    for (let k = 0; k < text.length; k++) header.setUint8(at + k, text.charCodeAt(k));
  };
  write(0, "RIFF");
  header.setUint32(4, 36 + numBytes, true);
  write(8, "WAVEfmt ");
  header.setUint32(16, 16, true); // bytes of the format
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channels
  header.setUint32(24, sampleRate, true);
  header.setUint32(28, 2 * sampleRate, true); // bytes a second
  header.setUint16(32, 2, true); // bytes a frame
  header.setUint16(34, 16, true); // bits a sample
  write(36, "data");
  header.setUint32(40, numBytes, true);
  return new Blob([header, ...parts], { type: "audio/wav" });
}

/** Samples in [-1, 1] as 16 bit integers. */
export function toInt16(samples) {
  return Int16Array.from(samples, (x) => Math.round(Math.max(-1, Math.min(1, x)) * 32767));
}
