// Windows over the page: open a room by name, and ask for a room's password. Both are native dialogs,
// which keep the keyboard inside and close with Esc.

import { part } from "./dom.js";
import { errorText } from "./words.js";

function ask(dialog, submit) {
  const form = dialog.querySelector("form");
  const error = part("dialog-error", dialog);
  const buttons = [...form.querySelectorAll("button")];
  form.reset();
  error.textContent = "";
  form.onsubmit = async (event) => {
    event.preventDefault();
    const answers = Object.fromEntries(new FormData(form, event.submitter));
    buttons.forEach((button) => (button.disabled = true));
    try {
      await submit(answers);
      dialog.close();
    } catch (problem) {
      error.textContent = errorText(problem);
    } finally {
      buttons.forEach((button) => (button.disabled = false));
    }
  };
  part("dialog-cancel", dialog).onclick = () => dialog.close();
  dialog.showModal();
}

/** `submit({action, room, password, mode})`, where action is "join" or "create", may throw. */
export function askForRoom(submit) {
  ask(part("room-dialog"), submit);
}

/** `submit({password})` may throw. */
export function askForPassword(title, submit) {
  const dialog = part("password-dialog");
  part("password-room", dialog).textContent = title;
  ask(dialog, submit);
}
