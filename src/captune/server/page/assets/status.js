// A line that screen readers speak whenever it changes; the same words again are spoken again.
export default function ({ parentElement, data }) {
  const line = parentElement.querySelector("[role=status]");
  if (line.dataset.version === data.version) return;
  line.dataset.version = data.version;
  line.textContent = "";
  setTimeout(() => (line.textContent = data.text), 100);
}
