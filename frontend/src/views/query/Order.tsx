import { SORTS } from "../../address/link";
import type { Sort } from "../../endpoint/contract";
import { ordersFor } from "../../search/orders";
import { changeOptions } from "../../search/search";
import { facets, options, query } from "../../state";
import { t } from "../../words/messages";

/** The order of the results: above them, or on a phone among the filters. */
export function Order() {
  const { sort } = options.value;
  const offered = ordersFor(facets.value, query.value?.kind !== "words");
  return (
    <label class="order">
      <span>{t("order.label")}</span>
      <select value={sort} onChange={(event) => void changeOptions({ sort: event.currentTarget.value as Sort })}>
        {SORTS.filter((one) => one === sort || offered.includes(one)).map((one) => (
          <option key={one} value={one}>
            {t(`order.${one}`)}
          </option>
        ))}
      </select>
    </label>
  );
}
