"""Paragraphs in many languages, from the Universal Declaration of Human Rights."""

from __future__ import annotations

TEXTS = {
    "french": (
        "Considérant que les États Membres se sont engagés à assurer, en coopération avec "
        "l’Organisation des Nations Unies, le respect universel et effectif des droits de "
        "l’homme et des libertés fondamentales,\n"
        "Considérant qu’une conception commune de ces droits et libertés est de la plus haute "
        "importance pour remplir pleinement cet engagement,\n"
    ),
    "spanish": (
        "Considerando que los Estados Miembros se han comprometido a asegurar, en cooperación "
        "con la Organización de las Naciones Unidas, el respeto universal y efectivo a los "
        "derechos y libertades fundamentales del hombre, y\n"
        "Considerando que una concepción común de estos derechos y libertades es de la mayor "
        "importancia para el pleno cumplimiento de dicho compromiso;\n"
    ),
    "german": (
        "da die Mitgliedstaaten sich verpflichtet haben, in Zusammenarbeit mit den Vereinten "
        "Nationen auf die allgemeine Achtung und Einhaltung der Menschenrechte und "
        "Grundfreiheiten hinzuwirken,\n"
        "da ein gemeinsames Verständnis dieser Rechte und Freiheiten von größter Wichtigkeit "
        "für die volle Erfüllung dieser Verpflichtung ist,\n"
        "diese Allgemeine Erklärung der Menschenrechte als das von allen Völkern und Nationen "
        "zu erreichende gemeinsame Ideal, damit jeder einzelne und alle Organe der "
        "Gesellschaft sich diese Erklärung stets gegenwärtig halten und sich bemühen, durch "
        "Unterricht und Erziehung die Achtung vor diesen Rechten und Freiheiten zu fördern und "
        "durch fortschreitende nationale und internationale Maßnahmen ihre allgemeine und "
        "tatsächliche Anerkennung und Einhaltung durch die Bevölkerung der Mitgliedstaaten "
        "selbst wie auch durch die Bevölkerung der ihrer Hoheitsgewalt unterstehenden Gebiete "
        "zu gewährleisten.\n"
    ),
    "portuguese": (
        "Considerando que os Estados membros se comprometeram a promover, em cooperação com a "
        "Organização das Nações Unidas, o respeito universal e efectivo dos direitos humanos e "
        "das liberdades fundamentais;\n"
        "Considerando que uma concepção comum destes direitos e liberdades é da mais alta "
        "importância para dar plena satisfação a tal compromisso:\n"
    ),
    "swedish": (
        "enär medlemsstaterna åtagit sig att i samverkan med Förenta Nationerna säkerställa "
        "allmän och effektiv respekt för de mänskliga rättigheterna och de grundläggande "
        "friheterna,\n"
        "enär en gemensam uppfattning av dessa fri- och rättigheters innebörd är av största "
        "betydelse för uppfyllandet av detta åtagande,\n"
        "denna ALLMÄNNA FÖRKLARING OM DE MÄNSKLIGA RÄTTIGHETERNA såsom en gemensam riktlinje "
        "för alla folk och alla nationer, på det att varje individ och varje samhällsorgan må "
        "med denna förklaring i åtanke ständigt sträva efter att genom undervisning och "
        "uppfostran befordra respekten för dessa fri- och rättigheter samt genom "
        "framstegsfrämjande inhemska och internationella åtgärder säkerställa deras allmänna "
        "och verksamma erkännande och tilllämpning såväl bland folken i medlemsstaterna som "
        "bland folken i områden under deras överhöghet.\n"
    ),
    "polish": (
        "ZWAŻYWSZY, że Państwa Członkowskie podjęły się we współpracy z Organizacją Narodów "
        "Zjednoczonych zapewnić powszechne poszanowanie i przestrzeganie praw człowieka i "
        "podstawowych wolności,\n"
        "ZWAŻYWSZY, że jednakowe rozumienie tych praw i wolności ma olbrzymie znaczenie dla "
        "ich pełnej realizacji,\n"
        "Ogłasza Uroczyście niniejszą Powszechną Deklarację Praw Człowieka jako wspólny "
        "najwyższy cel wszystkich ludów i wszystkich narodów, aby wszyscy ludzie i wszystkie "
        "organy społeczeństwa - mając stale w pamięci niniejszą Deklarację - dążyły w drodze "
        "nauczania i wychowywania do rozwijania poszanowania tych praw i wolności i aby "
        "zapewniły za pomocą postępowych środków o zasięgu krajowym i międzynarodowym "
        "powszechne i skuteczne uznanie i stosowanie tej Deklaracji zarówno wśród narodów "
        "Państw Członkowskich, jak i wśród narodów zamieszkujących obszary podległe ich "
        "władzy.\n"
    ),
    "czech": (
        "že členské státy převzaly závazek zajistit ve spolupráci s Organizací spojených "
        "národů všeobecné uznávání a zachovávání lidských práv a základních svobod a\n"
        "že stejné chápání těchto práv a svobod má nesmírný význam pro dokonalé splnění tohoto "
        "závazku,\n"
        "jakožto společný cíl pro všechny národy a všechny státy za tím účelem, aby se každý "
        "jednotlivec a každý orgán společnosti, maje tuto deklaraci stále na mysli, snažil "
        "vyučováním a výchovou rozšířit úctu k těmto právům a svobodám a zajistil postupnými "
        "opatřeními vnitrostátními i mezinárodními jejich všeobecné a účinné uznávání a "
        "zachovávání jak mezi lidem členských států samých, tak i mezi lidem území, jež jsou "
        "pod jejich pravomocí.\n"
    ),
    "russian": (
        "принимая во внимание, что государства-члены обязались содействовать, в сотрудничестве "
        "с Организацией Объединенных Наций, всеобщему уважению и соблюдению прав человека и "
        "основных свобод; и\n"
        "принимая во внимание, что всеобщее понимание характера этих прав и свобод имеет "
        "огромное значение для полного выполнения этого обязательства,\n"
        "провозглашает настоящую Всеобщую декларацию прав человека в качестве задачи, к "
        "выполнению которой должны стремиться все народы и государства с тем, чтобы каждый "
        "человек и каждый орган общества, постоянно имея в виду настоящую Декларацию, "
        "стремились путем просвещения и образования содействовать уважению этих прав и свобод "
        "и обеспечению, путем национальных и международных прогрессивных мероприятий, "
        "всеобщего и эффективного признания и осуществления их как среди народов "
        "государств-членов Организации, так и среди народов территорий, находящихся под их "
        "юрисдикцией.\n"
    ),
    "ukrainian": (
        "беручи до уваги. що держави‐члени зобов'язались сприяти у співробітництві з "
        "Організацією Об'єднаних Націй загальній повазі і додержанню прав людини і основних "
        "свобод; і\n"
        "беручи до уваги, що загальне розуміння характеру цих прав і свобод має величезне "
        "значення для повного виконання цього зобов'язання,\n"
        "проголошує цю Загальну Декларацію Прав Людини як завдання, до виконання якого повинні "
        "прагнути всі народи і всі держави з тим, щоб кожна людина і кожний орган суспільства, "
        "завжди маючи на увазі цю Декларацію, прагнули шляхом освіти сприяти поважанню цих "
        "прав і свобод і забезпеченню, шляхом національних і міжнародних прогресивних заходів, "
        "загального і ефективного визнання і здійснення їх як серед народів держав ‐ членів "
        "Організації, так і серед народів територій, що перебувають під їх юрисдикцією.\n"
    ),
    "greek": (
        "Επειδή τα κράτη μέλη ανέλαβαν την υποχρέωση να εξασφαλίσουν, σε συνεργασία με τον "
        "Οργανισμό των Ηνωμένων Εθνών, τον αποτελεσματικό σεβασμό των δικαιωμάτων του ανθρώπου "
        "και των θεμελιακών ελευθεριών σε όλο τον κόσμο.\n"
        "Επειδή η ταυτότητα αντιλήψεων ως προς τα δικαιώματα και τις ελευθερίες αυτές έχει "
        "εξαιρετική σημασία για να εκπληρωθεί πέρα ως πέρα αυτή η υποχρέωση,\n"
    ),
    "turkish": (
        "Üye devletlerin, Birleşmiş Milletler Teşkilatı ile işbirliği ederek insan haklarına "
        "ve ana hürriyetlerine bütün dünyada gerçekten saygı gösterilmesinin teminini taahhüt "
        "etmiş olmalarına,\n"
        "Bu haklar ve hürriyetlerin herkesçe aynı şekilde anlaşılmasının yukarıdaki taahhüdün "
        "yerine getirilmesi için son derece önemli bulunmasına göre,\n"
    ),
    "hebrew": (
        "הואיל והמדינות החברות התחייבו לפעול, בשיתוף עם ארגון האומות המאוחדות, לטיפול יחס כבוד "
        "כללי אל זכויות האדם ואל חירויות היסוד והקפדה על קיומן.\n"
        "הואיל והבנה משותפת במהותן של זכויות וחירויות אלה הוא תנאי חשוב לקיומה השלם של "
        "התחייבות זו.\n"
        "לפיכך מכריזה העצרת באזני כל באי העולם את ההכרזה הזאת בדבר זכויות האדם כרמת הישגים "
        "כללית לכל העמים והאומות, כדי שכל יחיד וכל גוף חברתי ישווה תמיד לנגד עיניו וישאף לטפח, "
        "דרך לימוד וחינוך, יחס של כבוד אל הזכויות ואל החירויות הללו, ולהבטיח באמצעים הדרגתיים, "
        "לאומיים ובינלאומיים, שההכרה בעקרונות אלה וההקפדה עליהם תהא כללית ויעילה בקרב אוכלוסי "
        "המדינות החברות ובקרב האוכלוסים שבארצות שיפוטם.\n"
    ),
    "arabic": (
        "ولما كان للإدراك العام لهذه الحقوق والحريات الأهمية الكبرى للوفاء التام بهذا التعهد.\n"
        "على أنه المستوى المشترك الذي ينبغي أن تستهدفه كافة الشعوب والأمم حتى يسعى كل فرد "
        "وهيئة في المجتمع، واضعين على الدوام هذا الإعلان نصب أعينهم، إلى توطيد احترام هذه "
        "الحقوق والحريات عن طريق التعليم والتربية واتخاذ إجراءات مطردة، قومية وعالمية، لضمان "
        "الإعتراف بها ومراعاتها بصورة عالمية فعالة بين الدول الأعضاء ذاتها وشعوب البقاع "
        "الخاضعة لسلطانها.\n"
    ),
    "thai": (
        "ปฏิญญาสากลว่าด้วยสิทธิมนุษยชนนี้ "
        "เป็นมาตรฐานร่วมกันแห่งความสำเร็จสำหรับบรรดาประชากรและประชาชาติทั้งหลาย "
        "เพื่อจุดหมายปลายทางที่ว่า เอกชนทุกคนและองค์การชองสังคมทุกองค์การ "
        "โดยการรำลึกถึงปฏิญญานี้เป็นเนืองนิจ จะบากบั่นพยายามด้วยการสอนและศึกษา "
        "ในอันที่จะส่งเสริมการเคารพสิทธิและอิสรภาพเหล่านี้ "
        "และด้วยมาตรการอันก้าวหน้าทั้งในประเทศและระหว่างประเทศ ในอันที่จะให้มีการยอมรับนับถือ "
        "และการปฏิบัติตามโดยสากลและอย่างเป็นผลจริงจัง ทั้งในบรรดาประชาชนของรัฐสมาชิกด้วยกันเอง "
        "และในบรรดาประชาชนของดินแดนที่อยู่ใตัอำนาจของรัฐนั้น ๆ\n"
    ),
    "japanese": (
        "これらの権利及び自由に対する共通の理解は、この誓約を完全にするためにもっとも重要であるの"
        "で、\n"
        "社会の各個人及び各機関が、この世界人権宣言を常に念頭に置きながら、加盟国自身の人民の間に"
        "も、また、加盟国の管轄下にある地域の人民の間にも、これらの権利と自由との尊重を指導及び教"
        "育によって促進すること並びにそれらの普遍的措置によって確保することに努力するように、すべ"
        "ての人民とすべての国とが達成すべき共通の基準として、この人権宣言を公布する。\n"
    ),
    "simplified Chinese": (
        "鉴于对这些权利和自由的普遍了解对于这个誓愿的充分实现具有很大的重要性,\n"
        "因此现在,大会,发布这一世界人权宣言,作为所有人民和所有国家努力实现的共同标准,以期每一"
        "个人和社会机构经常铭念本宣言,努力通过教诲和教育促进对权利和自由的尊重,并通过国家的和国"
        "际的渐进措施,使这些权利和自由在各会员国本身人民及在其管辖下领土的人民中得到普遍和有效的"
        "承认和遵行;\n"
    ),
    "traditional Chinese": (
        "鑑於對這些權利和自由的普遍了解對於這個誓願的充分實現具有很大的重要性，\n"
        "發布這一世界人權宣言，作為所有人民和所有國家努力實現的共同標準，以期每一個人和社會機構經"
        "常銘念本宣言，努力通過教誨和教育促進對權利和自由的尊重，並通過國家的和國際的漸進措施，使"
        "這些權利和自由在各會員國本身人民及在其管轄下領土的人民中得到普遍和有效的承認和遵行；\n"
    ),
    "korean": (
        "회원국들은 국제연합과 협력하여 인권과 기본적 자유의 보편적 존중과 준수를 증진할"
        " 것을 스스로 서약하였으며,\n"
        "이러한 권리와 자유에 대한 공통의 이해가 이 서약의 완전한 이행을 위하여 가장 "
        "중요하므로,\n"
        "모든 개인과 사회 각 기관이 이 선언을 항상 유념하면서 학습 및 교육을 통하여 "
        "이러한 권리와 자유에 대한 존중을 증진하기 위하여 노력하며, 국내적 그리고 국제"
        "적인 점진적 조치를 통하여 회원국 국민들 자신과 그 관할 영토의 국민들 사이에서"
        " 이러한 권리와 자유가 보편적이고 효과적으로 인식되고 준수되도록 노력하도록 하기"
        " 위하여, 모든 사람과 국가가 성취하여야 할 공통의 기준으로서 이 세계인권선언을"
        " 선포한다.\n"
    ),
}
