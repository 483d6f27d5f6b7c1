import type { ComponentChildren } from "preact";
import { config } from "../../state";

/** What the owner says about the catalogue: licences, credits, 'prices are made up'. */
export function Notes() {
  const { notes } = config.value;
  if (notes.length === 0) return null;
  return (
    <ul class="notes">
      {notes.map(({ text, href }) => (
        <li key={text}>
          <MaybeLink href={href}>{text}</MaybeLink>
        </li>
      ))}
    </ul>
  );
}

/** A link to another site, or plain text if there is no URL. */
export function MaybeLink(props: { href: string | null | undefined; title?: string; children: ComponentChildren }) {
  if (!props.href) return <>{props.children}</>;
  return (
    <a href={props.href} target="_blank" rel="noopener noreferrer" title={props.title}>
      {props.children}
    </a>
  );
}
