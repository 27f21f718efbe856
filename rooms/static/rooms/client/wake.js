// Wakes a connection when the machine, the network or the tab comes back.

/** Returns the function that ends it. Outside a browser it does nothing. */
export function wakeOnReturn(connection, { window, document } = globalThis) {
  if (!window || !document) {
    return () => {};
  }
  const wake = () => connection.wake();
  const seen = () => document.visibilityState === "visible" && wake();
  // Going offline is only a reason to look: a server on this machine is still there.
  window.addEventListener("offline", wake);
  window.addEventListener("online", wake);
  document.addEventListener("visibilitychange", seen);
  return () => {
    window.removeEventListener("offline", wake);
    window.removeEventListener("online", wake);
    document.removeEventListener("visibilitychange", seen);
  };
}
