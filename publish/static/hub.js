// A button on every block of code that copies it.
for (const block of document.querySelectorAll("pre")) {
  const code = block.querySelector("code");
  if (!code || !navigator.clipboard) continue;
  const button = document.createElement("button");
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const frame = document.createElement("div");  // Which does not move when the code is scrolled.
  frame.className = "code";
  block.replaceWith(frame);
  frame.append(block, button);
}
