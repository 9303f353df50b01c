/** A question before something that is not easily undone. */

import { form, h } from "./elements.js";

/** @import {Child} from "./elements.js" */

let dialogCount = 0;

/**
 * Asks in a dialog over the view, and runs the task when the answer is yes. It closes when the task is done, and stays
 * when the task says false; what fails is shown in it.
 *
 * @param {HTMLElement} root  the view's: the dialog goes with it
 * @param {{ title: string, submit: string, kind?: "primary" | "danger" }} options
 * @param {Child[]} content
 * @param {() => Promise<boolean | void>} task
 */
export function ask(root, options, content, task) {
  dialogCount += 1;
  const title = `dialog-${dialogCount}`;
  const cancel = h("button", { type: "button", class: "button quiet" }, "Cancel");
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": title },
    h("h2", { id: title }, options.title),
    form({ submit: options.submit, kind: options.kind ?? "danger", extra: [cancel] }, content, async () => {
      if ((await task()) !== false) dialog.close();
    }),
  );
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  root.append(dialog);
  dialog.showModal();
  // Never on the button that does it: Enter, pressed once more by habit, would do it.
  /** @type {HTMLElement} */ (dialog.querySelector("input") ?? cancel).focus();
}
