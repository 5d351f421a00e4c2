// A view is made anew whenever something has changed; what is the same in it stays where it is, with focus and scroll.

const kept = new Map();

/** What `build` makes of these data: made again only if they are others than the last time. */
function keep(key, data, build) {
  const mark = JSON.stringify(data);
  if (kept.get(key)?.mark !== mark) kept.set(key, { mark, node: build() });
  return kept.get(key).node;
}

/** Make these the children of a node; those that are there already are not moved. */
function arrange(parent, nodes) {
  const wanted = nodes.filter((node) => node !== null && node !== undefined), set = new Set(wanted);
  for (const child of [...parent.childNodes]) if (!set.has(child)) child.remove();
  wanted.forEach((node, i) => {
    if (parent.childNodes[i] !== node) parent.insertBefore(node, parent.childNodes[i] ?? null);
  });
  return parent;
}
