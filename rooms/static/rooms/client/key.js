// A string that nobody has made before. Not crypto.randomUUID, which browsers offer only to pages that
// came over https.

/** 128 random bits as 32 letters and digits. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
