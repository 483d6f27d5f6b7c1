import type { Item, Place } from "../../endpoint/contract";
import { formatCountry, formatPrice, formatPriceText, hostOf, safeLink, sentenceCase } from "../../words/format";
import { stockName } from "../../words/labels";
import { t } from "../../words/messages";
import { Icon } from "../elements/icons";
import { MaybeLink } from "../elements/Notes";
import { Thumb } from "../elements/Thumb";

const IN_STOCK = /^(https?:\/\/schema\.org\/)?in[ _]?stock$/i;

/** What it costs, and where it belongs. */
export function Facts({ item }: { item: Item }) {
  const { price, currency, collection, country, extra = {} } = item;
  const { regular_price: regular, availability, brand } = extra;
  const where = [brand, collection && sentenceCase(collection), country && formatCountry(country)].filter(Boolean);
  const gone = availability && !IN_STOCK.test(availability);
  return (
    <>
      {typeof price === "number" && (
        <p class="price-tag">
          <strong>{formatPrice(price, currency)}</strong>
          {regular && (
            <s class="muted">
              <span class="visually-hidden">{t("card.insteadOf")} </span>
              {formatPriceText(regular, currency)}
            </s>
          )}
          {gone && <span class="muted">{stockName(availability)}</span>}
        </p>
      )}
      {where.length > 0 && (
        <p class="card-where" dir="auto" title={where.join(" · ")}>
          {where.join(" · ")}
        </p>
      )}
    </>
  );
}

/** Whose picture it is and how it may be used, as its licence asks to be told. */
export function Credit({ item: { author, licence, extra = {} } }: { item: Item }) {
  if (!author && !licence) return null;
  return (
    <p class="credit">
      {author && <MaybeLink href={safeLink(extra["file_page"])}>{author}</MaybeLink>}
      {author && licence && " · "}
      {licence && <MaybeLink href={safeLink(extra["licence_url"])}>{licence}</MaybeLink>}
    </p>
  );
}

/** One of the items, where the same credit goes for them all. */
export function sharedCredit(items: readonly Item[]): Item | null {
  const [first, ...rest] = items;
  if (!first || (!first.author && !first.licence) || rest.length === 0) return null;
  const credit = ({ author, licence, extra = {} }: Item) => [author, licence, extra["file_page"]].join("\n");
  return rest.every((item) => credit(item) === credit(first)) ? first : null;
}

/** Other items behind one result: where else the same picture stands, or the rest of its product with its pictures. */
export function Others({
  title,
  places,
  pictures = false,
}: {
  title: string;
  places: readonly Place[];
  pictures?: boolean;
}) {
  return (
    <details class="places">
      <summary>
        <span>{title}</span>
        <Icon name="chevron" size={16} />
      </summary>
      <ul>
        {places.map((place) => {
          const page = safeLink(place.page_url);
          return (
            <li key={place.item}>
              {pictures && (
                <span class="place-picture">
                  <Thumb src={place.image_url ?? ""} alt="" />
                </span>
              )}
              <span class="place-name" dir="auto">
                <MaybeLink href={page}>{place.title || (page && hostOf(page)) || t("card.untitled")}</MaybeLink>
              </span>
              {typeof place.price === "number" && (
                <span class="place-price">{formatPrice(place.price, place.currency)}</span>
              )}
            </li>
          );
        })}
      </ul>
    </details>
  );
}
