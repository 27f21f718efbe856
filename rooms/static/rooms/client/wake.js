// Wakes a connection when the computer, the network or the tab becomes active again.

/** Adds the listeners and returns a function that removes them. Outside a browser it does nothing. */
export function wakeOnBrowserEvents(connection, { window, document } = globalThis) {
  if (!window || !document) {
    return () => {};
  }
  const wake = () => connection.wake();
  const wakeIfVisible = () => document.visibilityState === "visible" && wake();
  // "offline" only triggers a check, because a server on this computer stays reachable.
  window.addEventListener("offline", wake);
  window.addEventListener("online", wake);
  document.addEventListener("visibilitychange", wakeIfVisible);
  return () => {
    window.removeEventListener("offline", wake);
    window.removeEventListener("online", wake);
    document.removeEventListener("visibilitychange", wakeIfVisible);
  };
}
