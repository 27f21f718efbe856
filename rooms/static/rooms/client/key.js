// Idempotency keys. crypto.randomUUID is not used, because browsers offer it only to pages served over https.

/** Returns 128 random bits as 32 hexadecimal digits. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
