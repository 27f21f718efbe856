// The dialogs for the name and for the password of a room. Native dialogs trap the focus and close with Esc.

import { part } from "./dom.js";
import { errorText } from "./texts.js";

function openDialog(dialog, submit) {
  const form = dialog.querySelector("form");
  const errorLine = part("dialog-error", dialog);
  const buttons = [...form.querySelectorAll("button")];
  form.reset();
  errorLine.textContent = "";
  form.onsubmit = async (event) => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(form, event.submitter));
    buttons.forEach((button) => (button.disabled = true));
    try {
      await submit(fields);
      dialog.close();
    } catch (error) {
      errorLine.textContent = errorText(error);
    } finally {
      buttons.forEach((button) => (button.disabled = false));
    }
  };
  part("dialog-cancel", dialog).onclick = () => dialog.close();
  dialog.showModal();
}

/** Calls `submit({action, room, password, mode})` with "join" or "create" as action, and shows its errors. */
export function openRoomDialog(submit) {
  openDialog(part("room-dialog"), submit);
}

/** Calls `submit({password})`, and shows its errors. */
export function openPasswordDialog(title, submit) {
  const dialog = part("password-dialog");
  part("password-room", dialog).textContent = title;
  openDialog(dialog, submit);
}
